import RFB

/// Stands in for the shell: keeps what was sent and what was asked for.
struct Conversation {
  var handshake: ServerHandshake
  private(set) var sent: [UInt8] = []
  private(set) var other: [ServerHandshake.Action] = []

  /// The challenge that every conversation gets.
  static let challenge = (0..<16).map { UInt8($0) }

  init(_ transport: Transport = .tcp(loopback: false), _ policy: SecurityPolicy = .init()) {
    handshake = ServerHandshake(
      offer: SecurityOffer(transport: transport, policy: policy), cryptography: Foretold())
    handle(.connected)
  }

  mutating func handle(_ event: ServerHandshake.Event) {
    for action in handshake.handle(event) {
      if case .send(let bytes) = action { sent += bytes } else { other.append(action) }
    }
  }

  mutating func receive(_ bytes: [UInt8]) { handle(.received(bytes)) }
  mutating func receive(_ text: String) { receive(Array(text.utf8)) }

  /// What was sent since the last call.
  mutating func takeSent() -> [UInt8] {
    defer { sent = [] }
    return sent
  }

  /// What was asked for since the last call.
  mutating func takeOther() -> [ServerHandshake.Action] {
    defer { other = [] }
    return other
  }

  var closed: HandshakeError.Kind? {
    for case .close(let error) in other { return error.kind }
    return nil
  }

  private struct Foretold: Cryptography {
    func randomBytes(_ count: Int) -> [UInt8] { Array(Conversation.challenge.prefix(count)) }
    func vncResponse(challenge: [UInt8], password: [UInt8]) -> [UInt8] { password }
  }
}

func reason(_ text: String) -> [UInt8] {
  [0, 0, 0, UInt8(text.utf8.count)] + Array(text.utf8)
}

/// User name and password as VeNCrypt Plain carries them.
func plain(_ user: String, _ password: String) -> [UInt8] {
  [0, 0, 0, UInt8(user.utf8.count), 0, 0, 0, UInt8(password.utf8.count)]
    + Array(user.utf8) + Array(password.utf8)
}
