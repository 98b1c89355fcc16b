import CLinux
import Display
import Glibc
import LinuxSystem

/// A TCP port where viewers connect without a broker: each gets a session of its
/// own, in this process. There is no authentication; bind it to loopback.
public final class ViewerListener: Sendable {
  /// The port that is listened at.
  public let port: UInt16

  private static let maximumViewers = 16
  private static let handshakeTime: UInt64 = 10_000_000_000
  /// How long to wait for descriptors or memory when there are none, at most.
  private static let recovery: Int32 = 1000

  private let descriptor: FileDescriptor
  private let stop: EventDescriptor
  /// Sessions that have ended and wait to be joined.
  private let ended: Mailbox<Int>
  private let thread: Guarded<Thread?>

  private static let listenerToken: UInt64 = 0
  private static let stopToken: UInt64 = 1
  private static let endedToken: UInt64 = 2

  /// Listens at `address`, "HOST:PORT" (port 0: any).
  ///
  /// - Parameters:
  ///   - connect: makes a connection to the VMM's display link for each viewer.
  /// - Throws: kind `addressInUse` when somebody listens there.
  public init(
    at address: String, configuration: ViewerConfiguration,
    connect: @escaping @Sendable () throws -> UnixSocket
  ) throws(SystemError) {
    Signal.pipe.ignore()
    let (descriptor, port) = try Self.listen(at: address)
    let stop = try EventDescriptor()
    let ended = try Mailbox<Int>()
    let poller = try Poller()
    try poller.add(descriptor, token: Self.listenerToken)
    try poller.add(stop.descriptor, token: Self.stopToken)
    try poller.add(ended.descriptor, token: Self.endedToken)
    (self.descriptor, self.port, self.stop, self.ended) = (descriptor, port, stop, ended)
    var configuration = configuration
    configuration.machineTakesPower = true
    configuration.handshakeTime = configuration.handshakeTime ?? Self.handshakeTime
    // The process of a machine that ended is not there any longer than that.
    let farewell = configuration.farewellTime.lowerBound
    configuration.farewellTime = farewell...farewell
    let start: @Sendable (Int, FileDescriptor) -> ViewerSession? = {
      [configuration] number, client in
      guard let link = try? connect() else { return nil }
      return try? ViewerSession(client: client, configuration: configuration, link: link) {
        if case .closed = $0 { ended.post(number) }
      }
    }
    thread = Guarded(
      try Thread(name: "viewers") { Self.serve(descriptor, poller, ended, start) })
  }

  /// Stops listening and disconnects all viewers.
  public func close() {
    stop.signal()
    let thread = thread.withLock { thread in
      defer { thread = nil }
      return thread
    }
    thread?.join()
  }

  /// Accepts viewers until told to stop, and clears up after those that left.
  private static func serve(
    _ listener: FileDescriptor, _ poller: Poller, _ ended: Mailbox<Int>,
    _ start: (Int, FileDescriptor) -> ViewerSession?
  ) {
    var sessions: [Int: ViewerSession] = [:]
    var next = 0
    var isStopped = false
    var isListening = true
    while !isStopped,
      let events = try? poller.wait(milliseconds: isListening ? -1 : recovery)
    {
      if !isListening && (try? poller.add(listener, token: listenerToken)) != nil {
        isListening = true
      }
      for event in events {
        switch event.token {
        case listenerToken:
          let raw = clinux_accept(listener.raw)
          if raw < 0 && [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(-raw) {
            // The viewer stays in the queue and would be reported again at once.
            poller.remove(listener)
            isListening = false
          }
          guard raw >= 0 else { continue }
          let client = FileDescriptor(owning: raw)
          next += 1
          if sessions.count < maximumViewers { sessions[next] = start(next, client) }
        case endedToken:
          for number in ended.takeAll() { sessions.removeValue(forKey: number)?.join() }
        default: isStopped = true
        }
      }
    }
    for session in sessions.values { session.end("The desktop was shut down") }
    for session in sessions.values { session.join() }
  }

  private static func listen(at address: String) throws(SystemError) -> (FileDescriptor, UInt16) {
    guard let colon = address.lastIndex(of: ":") else {
      throw SystemError(code: EINVAL, "listen at \(address): want HOST:PORT")
    }
    let host = address[..<colon].filter { $0 != "[" && $0 != "]" }
    let service = String(address[address.index(after: colon)...])
    var hints = addrinfo()
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host.isEmpty ? nil : String(host), service, &hints, &found) == 0,
      let first = found?.pointee
    else {
      throw SystemError(code: EADDRNOTAVAIL, "listen at \(address)")
    }
    defer { freeaddrinfo(found) }
    let raw = socket(first.ai_family, first.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard raw >= 0 else { throw SystemError(code: errno, "listen at \(address)") }
    let descriptor = FileDescriptor(owning: raw)
    var on: Int32 = 1
    setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &on, 4)
    guard bind(raw, first.ai_addr, first.ai_addrlen) == 0, Glibc.listen(raw, 16) == 0 else {
      let code = errno
      let remedy = " (choose another port, or end what uses this one: 'ss -ltnp' shows it)"
      throw SystemError(
        code: code, "listen for viewers at \(address)" + (code == EADDRINUSE ? remedy : ""))
    }
    // Whoever connected may be gone before it is accepted.
    try descriptor.setNonBlocking(true)
    return (descriptor, port(of: raw))
  }

  private static func port(of descriptor: Int32) -> UInt16 {
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    // SAFETY: getsockname writes at most `length` bytes; both families keep the
    // port at the same place.
    return withUnsafeMutableBytes(of: &address) { bytes in
      guard let base = bytes.baseAddress,
        getsockname(descriptor, base.assumingMemoryBound(to: sockaddr.self), &length) == 0
      else { return 0 }
      return UInt16(bigEndian: base.load(fromByteOffset: 2, as: UInt16.self))
    }
  }
}
