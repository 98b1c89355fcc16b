import LinuxSystem
import Snapshot
import TestSupport
import Testing

@Suite("Snapshots with bad intentions")
struct SnapshotFuzzingTests {
  private static let corpus = "\(Programs.repository)/Tests/Fuzz/Corpus/snapshot"

  @Test("what the fuzz target starts from passes, and so does what is like it")
  func corpus() throws {
    let directory = try TemporaryDirectory()
    let names = try directory.run("ls \(Self.corpus)").output.split(separator: "\n")
    #expect(names.count >= 10)
    var generator = SeededGenerator(seed: 1)
    for name in names {
      let bytes = try Files.read("\(Self.corpus)/\(name)")
      #expect(SnapshotFuzzing.run(bytes), "\(name)")
      for _ in 0..<20 {
        var changed = bytes
        for _ in 0..<Int.random(in: 1...6, using: &generator) {
          changed[Int.random(in: 0..<changed.count, using: &generator)] =
            .random(in: 0...255, using: &generator)
        }
        #expect(SnapshotFuzzing.run(changed), "\(name), changed: \(changed)")
      }
    }
  }

  @Test("one that nobody changed is opened, whole or not, and one with wrong sums is not")
  func sound() {
    var opened = 0
    for choice: UInt8 in 0...3 { #expect(SnapshotFuzzing.run([choice, 0]) { _ in opened += 1 }) }
    #expect(opened == 4)
    // Its first table is altered without its sum.
    for choice: UInt8 in 2...3 {
      #expect(SnapshotFuzzing.run([choice, 1, 2, 0, 0, 0, 0xFF]) { _ in opened += 1 })
    }
    #expect(opened == 4)
  }

  @Test("versions that were written once are what they were, and anything else is refused or read")
  func files() throws {
    for (name, choice) in [("version-1", 0x80), ("version-2", 0x81)] as [(String, UInt8)] {
      let bytes = try Files.read("\(Programs.repository)/Tests/SnapshotTests/Corpus/\(name)")
      var opened = 0
      #expect(SnapshotFuzzing.run([choice] + bytes) { _ in opened += 1 })
      // The other needs a base with a memory that this one's has not.
      #expect(opened == (name == "version-1" ? 1 : 0))
      for count in stride(from: 0, to: bytes.count, by: 997) {
        #expect(SnapshotFuzzing.run([choice] + bytes.prefix(count)))
      }
    }
  }
}
