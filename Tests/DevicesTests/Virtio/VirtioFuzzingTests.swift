import Devices
import LinuxSystem
import TestSupport
import Testing

@Suite struct VirtioFuzzingTests {
  @Test("whatever a guest does to a virtio disk, a reset brings it back", arguments: 0..<8)
  func random(seed: UInt64) {
    var generator = SeededGenerator(seed: seed &+ 300)
    for _ in 0..<60 {
      let program = (0..<Int.random(in: 1...600, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      #expect(VirtioFuzzing.run(program))
    }
  }

  @Test(
    "whatever a guest does to another virtio device, a reset brings it back",
    arguments: 0..<UInt8(VirtioCardsFuzzing.kinds), 0..<4)
  func randomCards(kind: UInt8, seed: UInt64) {
    var generator = SeededGenerator(seed: seed &+ 700)
    for _ in 0..<60 {
      let program = (0..<Int.random(in: 1...600, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      #expect(VirtioCardsFuzzing.run([kind] + program))
    }
  }

  @Test(
    "what fuzzing of network cards begins with, and its neighbours, brings them to no harm",
    arguments: ["net-command", "net-large", "net-loop", "net-offloads", "net-segment"])
  func network(program: String) throws {
    let original = try Files.read(
      "\(Programs.repository)/Tests/Fuzz/Corpus/virtio-net/\(program)")
    #expect(VirtioCardsFuzzing.run(original))
    var generator = SeededGenerator(seed: UInt64(original.count))
    for _ in 0..<300 {
      var changed = original
      for _ in 0..<3 {
        changed[Int.random(in: changed.indices.dropFirst(), using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      #expect(VirtioCardsFuzzing.run(changed), "\(changed)")
    }
  }
}
