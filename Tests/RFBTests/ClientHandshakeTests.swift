import RFB
import Testing

@Suite("The client's side of an RFB handshake")
struct ClientHandshakeTests {
  @Test("a display is greeted with 3.8 and None, wherever its bytes are cut")
  func greeting() {
    let script = Array("RFB 003.008\n".utf8) + [2, 2, 1, 0, 0, 0, 0]
    for cut in 0...script.count {
      var display = ClientHandshake()
      let actions =
        display.receive(Array(script[..<cut])) + display.receive(Array(script[cut...]))
      #expect(
        actions == [.send(Array("RFB 003.008\n".utf8)), .send([1]), .relay([])])
      #expect(display.isFinished)
    }
  }

  @Test("a display that refuses is reported with its reason")
  func refusal() {
    for script in [
      [0] + reason("busy"), [1, 1, 0, 0, 0, 1] + reason("busy"),
    ] {
      var display = ClientHandshake()
      let actions = display.receive(Array("RFB 003.008\n".utf8) + script)
      #expect(actions.last == .close(HandshakeError(.refused, "the display refused: busy")))
      #expect(display.receive([0]) == [])
    }
  }

  @Test("a display that asks for a password, or is none, is not attached")
  func unusable() {
    for script in [Array("RFB 003.008\n".utf8) + [1, 2], Array("RFB 003.003\n".utf8)] {
      var display = ClientHandshake()
      guard case .close? = display.receive(script).last else {
        Issue.record("it was taken: \(script)")
        continue
      }
    }
  }
}
