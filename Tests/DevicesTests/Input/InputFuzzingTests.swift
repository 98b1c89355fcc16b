import Devices
import Testing

@Suite struct InputFuzzingTests {
  @Test("whatever guest and viewer do, lines and buffers stay sound", arguments: 0..<8)
  func random(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<100 {
      let program = (0..<Int.random(in: 1...600, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      let outcome = InputFuzzing.run(program)
      #expect(outcome.linesAgree)
      #expect(outcome.left < 5000)
    }
  }
}
