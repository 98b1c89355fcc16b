import CLinux
import Glibc

/// A connected Unix socket that carries bytes and descriptors.
public struct UnixSocket: Sendable {
  public enum Kind: Int32, Sendable {
    case stream = 0
    /// Keeps packet boundaries; an empty receive is the end.
    case packets = 1
  }

  public struct Message: Sendable {
    public var bytes: [UInt8]
    public var descriptors: [FileDescriptor]
    /// The packet or its descriptors did not fit; what is here is incomplete.
    public var isTruncated: Bool

    /// The peer closed the connection.
    public var isEnd: Bool { bytes.isEmpty && descriptors.isEmpty }
  }

  /// Who is at the other end, as the kernel recorded when it connected.
  public struct Credentials: Hashable, Sendable {
    public let process: Int32
    public let user: UInt32
    public let group: UInt32
  }

  public let descriptor: FileDescriptor

  public init(_ descriptor: FileDescriptor) {
    self.descriptor = descriptor
  }

  /// - Parameter blocking: whether to wait for a listener that has not accepted those that
  ///   connected earlier; without, the socket stays non-blocking.
  ///
  /// - Throws: kind `wouldBlock` (not blocking, others wait already), `disconnected` (nobody
  ///   listens).
  public static func connect(
    to path: String, kind: Kind, blocking: Bool = true
  ) throws(SystemError) -> UnixSocket {
    let descriptor = clinux_unix_connect(path, kind.rawValue, blocking ? 1 : 0)
    return UnixSocket(FileDescriptor(owning: try check(descriptor, "connect to \(path)")))
  }

  public static func pair(kind: Kind) throws(SystemError) -> (UnixSocket, UnixSocket) {
    var descriptors: [Int32] = [-1, -1]
    try check(clinux_socket_pair(kind.rawValue, &descriptors), "make a socket pair")
    return (
      UnixSocket(FileDescriptor(owning: descriptors[0])),
      UnixSocket(FileDescriptor(owning: descriptors[1]))
    )
  }

  /// Sends bytes, and with them up to 16 descriptors. A packet goes whole or not
  /// at all; a stream may take fewer bytes.
  ///
  /// - Throws: kind `wouldBlock` (not blocking, queue full), `disconnected`.
  @discardableResult
  public func send(
    _ bytes: [UInt8], descriptors: [FileDescriptor] = [], blocking: Bool = true
  ) throws(SystemError) -> Int {
    let numbers = descriptors.map(\.raw)
    return try check(
      clinux_send(
        descriptor.raw, bytes, bytes.count, numbers, numbers.count, blocking ? 1 : 0),
      "send to a socket")
  }

  /// Receives one packet, or what a stream has.
  ///
  /// - Throws: kind `wouldBlock` (not blocking, nothing there), `disconnected`.
  public func receive(capacity: Int = 65536, blocking: Bool = true)
    throws(SystemError) -> Message
  {
    var bytes = [UInt8](repeating: 0, count: capacity)
    var numbers = [Int32](repeating: -1, count: 16)
    var numberCount = numbers.count
    var truncated: Int32 = 0
    let count = try check(
      clinux_receive(
        descriptor.raw, &bytes, capacity, &numbers, &numberCount, &truncated, blocking ? 1 : 0),
      "receive from a socket")
    bytes.removeLast(capacity - count)
    return Message(
      bytes: bytes, descriptors: numbers.prefix(numberCount).map(FileDescriptor.init(owning:)),
      isTruncated: truncated != 0)
  }

  /// Ends both directions; the peer, and a thread blocked here, see the end.
  public func shutDown() {
    _ = clinux_shutdown(descriptor.raw, 1)
  }

  /// Tells the other end that nothing more comes.
  public func shutDownSending() {
    _ = clinux_shutdown(descriptor.raw, 0)
  }

  public func peerCredentials() throws(SystemError) -> Credentials {
    var process: Int32 = 0
    var user: UInt32 = 0
    var group: UInt32 = 0
    try check(
      clinux_peer_credentials(descriptor.raw, &process, &user, &group),
      "ask who is at the other end of a socket")
    return Credentials(process: process, user: user, group: group)
  }

  /// Bytes sent that the peer has not taken yet.
  public func unsentBytes() throws(SystemError) -> Int {
    Int(try check(clinux_send_queue(descriptor.raw), "ask for a socket's send queue"))
  }
}

/// A Unix socket that accepts connections; its path is removed when it goes.
public final class UnixListener: Sendable {
  public let descriptor: FileDescriptor
  public let path: String
  /// The path is of this process, not of its copies.
  private let owner = getpid()

  /// Listens at `path`. A path that a process left behind is taken over; one
  /// that somebody listens at is not (they see a connection that ends at once).
  ///
  /// - Throws: kind `addressInUse`.
  public init(at path: String, kind: UnixSocket.Kind, permissions: UInt32 = 0o600)
    throws(SystemError)
  {
    var result = clinux_unix_listen(path, kind.rawValue, 128)
    if result == -EADDRINUSE && Self.isAbandoned(path, kind) {
      unlink(path)
      result = clinux_unix_listen(path, kind.rawValue, 128)
    }
    descriptor = FileDescriptor(owning: try check(result, "listen at \(path)"))
    self.path = path
    guard chmod(path, permissions) == 0 else {
      throw SystemError(code: errno, "set the permissions of \(path)")
    }
  }

  private static func isAbandoned(_ path: String, _ kind: UnixSocket.Kind) -> Bool {
    let probe = clinux_unix_connect(path, kind.rawValue, 1)
    if probe >= 0 { close(probe) }
    return probe == -ECONNREFUSED
  }

  deinit {
    if getpid() == owner { unlink(path) }
  }

  /// Waits for the next connection (or throws `wouldBlock` when the descriptor
  /// was made non-blocking).
  public func accept() throws(SystemError) -> UnixSocket {
    UnixSocket(
      FileDescriptor(owning: try check(clinux_accept(descriptor.raw), "accept at \(path)")))
  }
}
