import Disk
import LinuxSystem
import TestSupport
import Testing

@Suite("qcow2 images with bad intentions")
struct Qcow2FuzzingTests {
  private static let corpus = "\(Programs.repository)/Tests/Fuzz/Corpus/qcow2"

  @Test("what the fuzz target starts from passes, and so does what is like it")
  func corpus() throws {
    let directory = try TemporaryDirectory()
    let names = try directory.run("ls \(Self.corpus)").output.split(separator: "\n")
    #expect(names.count >= 6)
    var generator = SeededGenerator(seed: 1)
    for name in names {
      let bytes = try Files.read("\(Self.corpus)/\(name)")
      #expect(Qcow2Fuzzing.run(bytes), "\(name)")
      for _ in 0..<2 {
        var changed = bytes
        for _ in 0..<Int.random(in: 1...6, using: &generator) {
          changed[Int.random(in: 0..<changed.count, using: &generator)] =
            .random(in: 0...255, using: &generator)
        }
        #expect(Qcow2Fuzzing.run(changed), "\(name), changed")
      }
    }
  }

  @Test("requests at random do a sound image no harm", arguments: 0..<16)
  func sound(seed: UInt64) {
    var generator = SeededGenerator(seed: seed + 60)
    let choice = UInt8(seed * 8) | UInt8.random(in: 0..<8, using: &generator)
    #expect(Qcow2Fuzzing.run([choice, 0] + .random(200, using: &generator)), "\(choice)")
  }

  @Test("an image with anything in its tables is refused or read, and that ends", arguments: 0..<16)
  func hostile(seed: UInt64) {
    var generator = SeededGenerator(seed: seed + 70)
    for _ in 0..<3 {
      let choice = UInt8(seed * 8) | UInt8.random(in: 0..<8, using: &generator)
      let changes = UInt8.random(in: 1...60, using: &generator)
      #expect(Qcow2Fuzzing.run([choice, changes] + .random(350, using: &generator)))
    }
  }
}
