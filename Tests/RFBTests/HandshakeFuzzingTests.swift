import RFB
import Testing

@Suite("Handshakes under fire")
struct HandshakeFuzzingTests {
  @Test("random and half-right input breaks no invariant")
  func random() {
    var random = SplitMix(state: 1)
    let starts: [[UInt8]] = [
      [], Array("RFB 003.003\n".utf8), Array("RFB 003.007\n".utf8),
      Array("RFB 003.008\n".utf8), Array("RFB 003.008\n".utf8) + [19, 0, 2],
      Array("RFB 003.008\n".utf8) + [19, 0, 2, 0, 0, 1, 0],
      Array("RFB 003.008\n".utf8) + [19, 0, 2, 0, 0, 1, 6],
      Array("RFB 003.008\n".utf8) + [2],
    ]
    var actions = 0
    for round in 0..<4000 {
      let tail = (0..<Int(random.next() % 64)).map { _ in
        random.next() % 4 == 0 ? UInt8(truncatingIfNeeded: random.next()) : 0
      }
      let head = [UInt8(truncatingIfNeeded: random.next()), UInt8(truncatingIfNeeded: round)]
      actions += HandshakeFuzzing.serve(head + starts[round % starts.count] + tail)
      HandshakeFuzzing.connect(head + starts[round % starts.count] + tail)
    }
    #expect(actions > 4000, "each handshake at least announced its version")
  }

  private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var mixed = state
      mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
      mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
      return mixed ^ (mixed >> 31)
    }
  }
}
