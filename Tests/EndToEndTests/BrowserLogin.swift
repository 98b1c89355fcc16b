/// A browser's way in: a websocket (RFC 6455) in clear, and VeNCrypt Plain in it.
struct BrowserLogin {
  private let connection: Connection

  init(port: UInt16) async throws {
    connection = try Connection(port: port)
    let lines = [
      "GET /websockify HTTP/1.1", "Host: localhost:\(port)", "Connection: Upgrade",
      "Upgrade: websocket", "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
    ]
    try connection.send(lines.joined(separator: "\r\n"))
    var head: [UInt8] = []
    while !head.suffix(4).elementsEqual("\r\n\r\n".utf8) { head += try await connection.take(1) }
    guard head.starts(with: "HTTP/1.1 101".utf8) else {
      throw SiteError("no websocket: \(String(decoding: head, as: UTF8.self))")
    }
  }

  /// Why the login was refused, or `nil`.
  func logIn(_ user: String, _ password: String) async throws -> String? {
    _ = try await takeMessage()
    try send(Array("RFB 003.008\n".utf8))
    guard try await takeMessage() == [1, 19] else { throw SiteError("VeNCrypt is not offered") }
    try send([19])
    _ = try await takeMessage()
    try send([0, 2])
    _ = try await takeMessage()
    try send([0, 0, 1, 0])
    let (user, password) = (Array(user.utf8), Array(password.utf8))
    try send(
      [0, 0, 0, UInt8(user.count), 0, 0, 0, UInt8(password.count)] + user + password)
    var answer = try await takeMessage()
    if answer == [0, 0, 0, 0] { return nil }
    while answer.count <= 8 { answer += try await takeMessage() }
    return String(decoding: answer.dropFirst(8), as: UTF8.self)
  }

  /// One masked frame; a mask of zeros leaves the bytes as they are.
  private func send(_ payload: [UInt8]) throws {
    try connection.send([0x82, 0x80 | UInt8(payload.count), 0, 0, 0, 0] + payload)
  }

  private func takeMessage() async throws -> [UInt8] {
    let head = try await connection.take(2)
    guard head[0] == 0x82, head[1] < 126 else { throw SiteError("unexpected frame \(head)") }
    return try await connection.take(Int(head[1]))
  }
}
