import Devices
import LinuxSystem
import TestSupport
import Testing

@Suite struct ChipsetFuzzingTests {
  private static let corpora: [(ChipsetFuzzing.Kind, String)] = [
    (.serial, "uart/loopback"), (.clock, "rtc/alarm"), (.powerManagement, "acpi-pm/buttons"),
    (.systemControl, "system-control/reset"), (.pci, "pci/bars"),
  ]

  @Test("whatever a guest does, devices stay sound", arguments: ChipsetFuzzing.Kind.allCases, 0..<4)
  func random(kind: ChipsetFuzzing.Kind, seed: UInt64) {
    var generator = SeededGenerator(seed: seed &+ 900)
    for _ in 0..<100 {
      let program = (0..<Int.random(in: 1...600, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      #expect(ChipsetFuzzing.run(kind, program), "\(program)")
    }
  }

  @Test("what fuzzing begins with, and its neighbours, brings them to no harm", arguments: 0..<5)
  func corpus(index: Int) throws {
    let (kind, name) = Self.corpora[index]
    let original = try Files.read("\(Programs.repository)/Tests/Fuzz/Corpus/\(name)")
    #expect(ChipsetFuzzing.run(kind, original))
    var generator = SeededGenerator(seed: UInt64(index))
    for _ in 0..<200 {
      var changed = original
      for _ in 0..<3 {
        changed[Int.random(in: changed.indices, using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      #expect(ChipsetFuzzing.run(kind, changed), "\(changed)")
    }
  }
}
