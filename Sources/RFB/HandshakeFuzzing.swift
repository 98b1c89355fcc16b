/// Drives the handshakes with arbitrary bytes and traps when an invariant breaks.
/// Shared by the fuzz targets and the tests.
package enum HandshakeFuzzing {
  /// The first byte chooses site and transport, the second how the rest is cut into
  /// pieces and what the shell answers. Returns the number of actions.
  @discardableResult
  package static func serve(_ input: [UInt8]) -> Int {
    guard input.count >= 2 else { return 0 }
    let choice = input[0]
    let policy = SecurityPolicy(
      tls: choice & 1 != 0, tickets: choice & 2 != 0, passwordless: choice & 4 != 0,
      cleartextSessions: choice & 8 != 0)
    let transport: Transport =
      choice & 16 != 0
      ? .webSocket(encrypted: choice & 32 != 0, loopback: choice & 64 != 0)
      : .tcp(loopback: choice & 64 != 0)
    var handshake = ServerHandshake(
      offer: SecurityOffer(transport: transport, policy: policy), cryptography: Zeroes())
    var actions = Script(accepts: input[1] & 0x80 != 0)
    actions.perform(.connected, on: &handshake)
    let piece = max(1, Int(input[1] & 0x7F))
    var rest = input[2...]
    while !rest.isEmpty {
      actions.perform(.received(Array(rest.prefix(piece))), on: &handshake)
      rest = rest.dropFirst(piece)
    }
    actions.perform(.timedOut, on: &handshake)
    invariant(handshake.phase == .finished, "a handshake outlived its deadline")
    return actions.count
  }

  /// The same for the side that faces a display process.
  @discardableResult
  package static func connect(_ input: [UInt8]) -> Int {
    guard let first = input.first else { return 0 }
    var handshake = ClientHandshake()
    var rest = input[1...]
    var count = 0
    while !rest.isEmpty {
      let wasFinished = handshake.isFinished
      let actions = handshake.receive(Array(rest.prefix(max(1, Int(first)))))
      invariant(!wasFinished || actions.isEmpty, "an action after the end")
      count += actions.count
      rest = rest.dropFirst(max(1, Int(first)))
    }
    return count
  }

  /// Plays the shell.
  private struct Script {
    let accepts: Bool
    var count = 0

    init(accepts: Bool) { self.accepts = accepts }

    mutating func perform(_ event: ServerHandshake.Event, on handshake: inout ServerHandshake) {
      let wasFinished = handshake.phase == .finished
      let actions = handshake.handle(event)
      invariant(!wasFinished || actions.isEmpty, "an action after the end")
      invariant(
        handshake.bufferedByteCount <= ServerHandshake.memoryLimit, "memory is not bounded")
      count += actions.count
      for action in actions {
        switch action {
        case .startTLS: perform(.tlsEstablished, on: &handshake)
        case .verify:
          let verdict: ServerHandshake.Verdict = accepts ? .accepted : .refused(reason: "no")
          perform(.verdict(verdict), on: &handshake)
        case .close, .relay:
          invariant(handshake.phase == .finished, "an end that is none")
        case .send(let bytes):
          invariant(!bytes.isEmpty && bytes.count <= 2048, "an odd message")
        }
      }
    }
  }

  private struct Zeroes: Cryptography {
    func randomBytes(_ count: Int) -> [UInt8] { Array(repeating: 0, count: count) }
    func vncResponse(challenge: [UInt8], password: [UInt8]) -> [UInt8] { challenge }
  }

  /// Reached by fuzz targets and tests only, so that trapping is the report.
  private static func invariant(_ holds: Bool, _ message: String) {
    precondition(holds, message)
  }
}
