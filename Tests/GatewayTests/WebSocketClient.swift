import LinuxSystem

/// A websocket client (RFC 6455) over a clear connection, as plain as can be.
final class WebSocketClient {
  private let client: RawClient
  private var bytes: [UInt8] = []

  init(
    port: Int, path: String = "/websockify", headers: [String] = []
  ) async throws {
    client = try RawClient(port: port)
    let lines =
      [
        "GET \(path) HTTP/1.1", "Host: localhost:\(port)", "Connection: Upgrade",
        "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
      ] + headers
    try client.send(lines.joined(separator: "\r\n") + "\r\n\r\n")
    let head = try await client.takeHead()
    guard head.hasPrefix("HTTP/1.1 101") else {
      throw SystemError(code: 71, "open a websocket: \(head.prefix(12))")
    }
    self.head = head
  }

  let head: String

  /// One masked frame; a mask of zeros leaves the bytes as they are.
  func sendFrame(_ payload: [UInt8], opcode: UInt8 = 2, isLast: Bool = true) throws {
    let length: [UInt8] =
      payload.count < 126
      ? [0x80 | UInt8(payload.count)]
      : [0xFE, UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
    try client.send([(isLast ? 0x80 : 0) | opcode] + length + [0, 0, 0, 0] + payload)
  }

  /// Exactly `count` bytes of RFB.
  func take(_ count: Int) async throws -> [UInt8] {
    while bytes.count < count {
      let (opcode, payload) = try await takeFrame()
      guard opcode == 2 else { throw SystemError(code: 104, "receive (opcode \(opcode))") }
      bytes += payload
    }
    defer { bytes.removeFirst(count) }
    return Array(bytes.prefix(count))
  }

  func takeFrame() async throws -> (opcode: UInt8, payload: [UInt8]) {
    let head = try await client.take(2)
    var count = Int(head[1])
    if count == 126 { count = try await client.take(2).reduce(0) { $0 << 8 | Int($1) } }
    if count == 127 { count = try await client.take(8).reduce(0) { $0 << 8 | Int($1) } }
    return (head[0] & 0x0F, try await client.take(count))
  }

  func takeRefusal() async throws -> String {
    guard try await take(4) == [0, 0, 0, 1] else { throw SystemError(code: 71, "be refused") }
    let count = try await take(4).reduce(0) { $0 << 8 | Int($1) }
    return String(decoding: try await take(count), as: UTF8.self)
  }

  func negotiatePlain() async throws {
    _ = try await take(12)
    try sendFrame(Array("RFB 003.008\n".utf8))
    guard try await take(2) == [1, 19] else { throw SystemError(code: 71, "find VeNCrypt") }
    try sendFrame([19])
    _ = try await take(2)
    try sendFrame([0, 2])
    guard try await take(6) == [0, 1, 0, 0, 1, 0] else {
      throw SystemError(code: 71, "find Plain")
    }
    try sendFrame([0, 0, 1, 0])
  }

  /// Logs in by VeNCrypt Plain; returns why not, or `nil`.
  func logIn(_ user: String, _ password: String) async throws -> String? {
    try await negotiatePlain()
    let user = Array(user.utf8)
    let password = Array(password.utf8)
    try sendFrame([0, 0, 0, UInt8(user.count), 0, 0, 0, UInt8(password.count)])
    try sendFrame(user)
    try sendFrame(password)
    let result = try await take(4)
    if result == [0, 0, 0, 0] { return nil }
    let count = try await take(4).reduce(0) { $0 << 8 | Int($1) }
    return String(decoding: try await take(count), as: UTF8.self)
  }
}
