import CNettle
import Glibc
import LinuxSystem

/// A TCP connection that sends exactly what it is told to.
final class Connection: Sendable {
  private let socket: UnixSocket
  private let received = Guarded<[UInt8]>([])

  /// Connects to `port` at an address of this host, from another of them.
  ///
  /// - Parameter room: what the kernel takes before it is read, at most.
  init(
    port: UInt16, at host: String = "127.0.0.1", from source: String? = nil, room: Int32? = nil
  ) throws {
    let raw = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard raw >= 0 else { throw SystemError(code: errno, "make a socket") }
    socket = UnixSocket(LinuxSystem.FileDescriptor(owning: raw))
    var limit = timeval(tv_sec: 20, tv_usec: 0)
    setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    if var room {
      setsockopt(raw, SOL_SOCKET, SO_RCVBUF, &room, socklen_t(MemoryLayout<Int32>.size))
    }
    if let source {
      guard Self.with(address: source, port: 0, { bind(raw, $0, $1) }) == 0 else {
        throw SystemError(code: errno, "be at \(source)")
      }
    }
    guard Self.with(address: host, port: port, { connect(raw, $0, $1) }) == 0 else {
      throw SystemError(code: errno, "connect to \(host), port \(port)")
    }
  }

  private static func with(
    address text: String, port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    inet_pton(AF_INET, text, &address.sin_addr)
    // SAFETY: the address is rebound for the one call that reads it, with its own size.
    return withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
  }

  func send(_ bytes: [UInt8]) throws {
    var rest = bytes[...]
    while !rest.isEmpty { rest.removeFirst(try socket.send(Array(rest))) }
  }

  func send(_ text: String) throws { try send(Array(text.utf8)) }

  /// Exactly `count` bytes.
  func take(_ count: Int) async throws -> [UInt8] {
    while received.withLock({ $0.count }) < count {
      let message = try await receive()
      if message.isEnd { throw SystemError(code: ECONNRESET, "receive \(count) bytes") }
      received.withLock { $0 += message.bytes }
    }
    return received.withLock { received in
      defer { received.removeFirst(count) }
      return Array(received.prefix(count))
    }
  }

  func takeNumber(_ bytes: Int) async throws -> Int {
    try await take(bytes).reduce(0) { $0 << 8 | Int($1) }
  }

  func takeText() async throws -> String {
    String(decoding: try await take(try await takeNumber(4)), as: UTF8.self)
  }

  /// Everything until the server closes.
  func takeRest() async -> [UInt8] {
    while let message = try? await receive(), !message.isEnd {
      received.withLock { $0 += message.bytes }
    }
    return received.withLock { $0 }
  }

  func close() { socket.shutDown() }

  private func receive() async throws -> UnixSocket.Message {
    let socket = self.socket
    return try await blocking { try socket.receive() }
  }
}

/// A VNC viewer of Raw and DesktopSize that logs in with a ticket (RFC 6143).
final class Viewer: Sendable {
  let connection: Connection
  private let size = Guarded((width: 0, height: 0))

  init(
    port: UInt16, at host: String = "127.0.0.1", from source: String? = nil, room: Int32? = nil
  ) throws {
    connection = try Connection(port: port, at: host, from: source, room: room)
  }

  func logIn(ticket: String) async throws {
    if let refusal = try await answer(ticket: ticket) { throw SiteError("refused: \(refusal)") }
    try await begin()
  }

  /// Security type None, among the types that were offered.
  func logInWithoutPassword() async throws {
    try connection.send([1])
    if let refusal = try await takeVerdict() { throw SiteError("refused: \(refusal)") }
    try await begin()
  }

  /// The session, once logged in.
  private func begin() async throws {
    try connection.send([1])
    let (width, height) = (try await connection.takeNumber(2), try await connection.takeNumber(2))
    size.withLock { $0 = (width, height) }
    _ = try await connection.take(16)
    _ = try await connection.takeText()
    // SetEncodings: DesktopSize, Raw.
    try connection.send([2, 0, 0, 2, 0xFF, 0xFF, 0xFF, 0x21, 0, 0, 0, 0])
  }

  /// Greets the server and learns its security types.
  func offeredTypes() async throws -> [UInt8] {
    _ = try await connection.take(12)
    try connection.send("RFB 003.008\n")
    return try await connection.take(try await connection.takeNumber(1))
  }

  /// VNC authentication with a ticket; why it was refused, if it was.
  func answer(ticket: String) async throws -> String? {
    let types = try await offeredTypes()
    guard types.contains(2) else { throw SiteError("no VNC authentication among \(types)") }
    let challenge = try await askForTicket()
    try connection.send(Self.response(to: challenge, password: Array(ticket.utf8)))
    return try await takeVerdict()
  }

  /// Chooses VNC authentication; the server waits for an answer to its challenge then.
  @discardableResult
  func askForTicket() async throws -> [UInt8] {
    try connection.send([2])
    return try await connection.take(16)
  }

  private func takeVerdict() async throws -> String? {
    try await connection.takeNumber(4) == 0 ? nil : try await connection.takeText()
  }

  /// DES with the password's bits mirrored, as VNC authentication has them.
  private static func response(to challenge: [UInt8], password: [UInt8]) -> [UInt8] {
    let key = (0..<8).map { index -> UInt8 in
      let byte = index < password.count ? password[index] : 0
      return (0..<8).reduce(0) { $0 << 1 | (byte >> $1 & 1) }
    }
    var context = des_ctx()
    var response = [UInt8](repeating: 0, count: challenge.count)
    _ = nettle_des_set_key(&context, key)
    nettle_des_encrypt(&context, challenge.count, &response, challenge)
    return response
  }

  /// Presses a key until the server, which shows why it ends, has closed.
  func dismiss() async {
    let typing = Task { [connection] in
      repeat {
        try? connection.send([4, 1, 0, 0, 0, 0, 0, 0x20])
      } while (try? await Task.sleep(for: .milliseconds(300))) != nil
    }
    _ = await connection.takeRest()
    typing.cancel()
  }

  /// Asks for the screen, or for its first lines.
  func request(incremental: Bool = false, lines: Int? = nil) throws {
    let (width, whole) = size.withLock { $0 }
    let height = lines ?? whole
    try connection.send(
      [3, incremental ? 1 : 0, 0, 0, 0, 0] + [width, height].flatMap { Self.twoBytes($0) })
  }

  private static func twoBytes(_ number: Int) -> [UInt8] {
    [UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number)]
  }

  /// The next update's pixels, or an empty one when it only says a new size.
  func takeUpdate() async throws -> [UInt8] {
    while true {
      switch try await connection.takeNumber(1) {
      case 0: return try await takeRectangles()
      case 2: break
      case 3:
        _ = try await connection.take(3)
        _ = try await connection.takeText()
      case let type: throw SiteError("unexpected message \(type)")
      }
    }
  }

  private func takeRectangles() async throws -> [UInt8] {
    _ = try await connection.take(1)
    var pixels: [UInt8] = []
    for _ in 0..<(try await connection.takeNumber(2)) {
      _ = try await connection.take(4)
      let width = try await connection.takeNumber(2)
      let height = try await connection.takeNumber(2)
      switch Int32(truncatingIfNeeded: try await connection.takeNumber(4)) {
      case 0: pixels += try await connection.take(width * height * 4)
      case -223: size.withLock { $0 = (width, height) }
      case let encoding: throw SiteError("unexpected encoding \(encoding)")
      }
    }
    return pixels
  }

  /// The whole screen as it is now.
  func screen() async throws -> [UInt8] {
    while true {
      try request()
      let pixels = try await takeUpdate()
      let (width, height) = size.withLock { $0 }
      if pixels.count == width * height * 4 { return pixels }
    }
  }
}
