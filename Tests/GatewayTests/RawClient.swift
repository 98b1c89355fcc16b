import Glibc
import Identity
import LinuxSystem

/// A TCP client that sends exactly what it is told to.
final class RawClient: Sendable {
  private let socket: UnixSocket
  private let received = Guarded<[UInt8]>([])

  /// - Parameter receiveBuffer: a small one makes a slow reader.
  init(port: Int, receiveBuffer: Int32? = nil) throws {
    let raw = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard raw >= 0 else { throw SystemError(code: errno, "make a socket") }
    socket = UnixSocket(LinuxSystem.FileDescriptor(owning: raw))
    if var size = receiveBuffer {
      setsockopt(raw, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
    }
    var limit = timeval(tv_sec: 20, tv_usec: 0)
    setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(truncatingIfNeeded: port).bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0 else { throw SystemError(code: errno, "connect to port \(port)") }
  }

  func send(_ bytes: [UInt8]) throws {
    var rest = bytes
    while !rest.isEmpty { rest.removeFirst(try socket.send(rest)) }
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

  func takeReason() async throws -> String {
    let length = try await take(4).reduce(0) { $0 << 8 | Int($1) }
    return String(decoding: try await take(length), as: UTF8.self)
  }

  /// Everything until the server closes.
  func takeRest() async -> [UInt8] {
    while let message = try? await receive(), !message.isEnd {
      received.withLock { $0 += message.bytes }
    }
    return received.withLock { received in
      defer { received = [] }
      return received
    }
  }

  func close() { socket.shutDown() }

  /// Whatever comes next; nothing at the end. Blocks.
  func nextBytes() -> [UInt8] { (try? socket.receive().bytes) ?? [] }

  private func receive() async throws -> UnixSocket.Message {
    let socket = self.socket
    return try await blocking { try socket.receive() }
  }

  /// An HTTP response's head.
  func takeHead() async throws -> String {
    var head: [UInt8] = []
    while !head.suffix(4).elementsEqual("\r\n\r\n".utf8) { head += try await take(1) }
    return String(decoding: head, as: UTF8.self)
  }

  /// Logs in with the ticket; ClientInit is next.
  func logInByTicket(_ ticket: String = "sesame23") async throws {
    _ = try await take(12)
    try answer(try await chooseTicket(), ticket)
    guard try await take(4) == [0, 0, 0, 0] else {
      throw SystemError(code: EACCES, "log in: \(try await takeReason())")
    }
  }

  /// Chooses VNC authentication, after the server's version; returns the challenge.
  func chooseTicket() async throws -> [UInt8] {
    try send("RFB 003.008\n")
    let count = try await take(1)[0]
    let types = try await take(Int(count))
    guard types.contains(2) else { throw SystemError(code: EPROTO, "find VNC authentication") }
    try send([2])
    return try await take(16)
  }

  func answer(_ challenge: [UInt8], _ ticket: String) throws {
    try send(
      SystemCryptography().vncResponse(challenge: challenge, password: Array(ticket.utf8)))
  }
}
