import Devices
import LinuxSystem
import TestSupport
import Testing

@Suite struct AudioCorpusTests {
  private static func corpus(_ name: String, _ program: String) throws -> [UInt8] {
    try Files.read("\(Programs.repository)/Tests/Fuzz/Corpus/\(name)/\(program)")
  }

  @Test(
    "what fuzzing of the controller begins with, and its neighbours, brings it to no harm",
    arguments: ["outside", "pause", "play", "rates", "record"])
  func controller(program: String) throws {
    let original = try Self.corpus("ac97", program)
    #expect(AC97Fuzzing.run(original))
    var generator = SeededGenerator(seed: UInt64(original.count))
    for _ in 0..<100 {
      var changed = original
      for _ in 0..<3 {
        changed[Int.random(in: changed.indices, using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      #expect(AC97Fuzzing.run(changed), "\(changed)")
    }
  }

  @Test(
    "and so with virtio's device", arguments: ["sound-play", "sound-record"])
  func virtio(program: String) throws {
    let original = try Self.corpus("virtio-snd", program)
    #expect(VirtioCardsFuzzing.run(original))
    var generator = SeededGenerator(seed: UInt64(original.count))
    for _ in 0..<100 {
      var changed = original
      for _ in 0..<3 {
        changed[Int.random(in: changed.indices.dropFirst(), using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      #expect(VirtioCardsFuzzing.run(changed), "\(changed)")
    }
  }
}
