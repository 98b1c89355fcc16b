import LinuxSystem
import Machine
import Snapshot
import TestSupport
import Testing

@Suite("Kernels, saved machines and networks with bad intentions")
struct HostileInputTests {
  /// Each file that a fuzz target starts from, and some that are like it.
  private func forEachInput(of target: String, _ body: ([UInt8], String) throws -> Void) throws {
    let corpus = "\(Programs.repository)/Tests/Fuzz/Corpus/\(target)"
    let directory = try TemporaryDirectory()
    let names = try directory.run("ls \(corpus)").output.split(separator: "\n")
    #expect(names.count >= 5)
    var generator = SeededGenerator(seed: 3)
    for name in names {
      let bytes = try Files.read("\(corpus)/\(name)")
      try body(bytes, "\(name)")
      for _ in 0..<30 {
        var changed = bytes
        for _ in 0..<Int.random(in: 1...5, using: &generator) {
          changed[Int.random(in: 0..<changed.count, using: &generator)] =
            .random(in: 0...255, using: &generator)
        }
        try body(changed, "\(name), changed: \(changed.prefix(700))")
      }
    }
  }

  @Test("a kernel is refused, or lies in RAM beside what the machine puts there")
  func kernels() throws {
    var outcomes: [String: KernelFuzzing.Outcome] = [:]
    try forEachInput(of: "kernel") { bytes, name in
      outcomes[name] = KernelFuzzing.run(bytes)
      #expect(outcomes[name] != .wrong, "\(name)")
    }
    for name in [
      "elf-pvh", "elf-linux", "elf-32", "elf-low", "bzimage-32", "bzimage-64", "bzimage-firmware",
      "bzimage-real-mode",
    ] { #expect(outcomes[name] == .loaded, "\(name)") }
    #expect(outcomes["elf-taken"] == .refused)
  }

  @Test("a machine is taken out of a snapshot, or is not")
  func savedMachines() throws {
    var opened = 0
    try forEachInput(of: "snapshot") { bytes, name in
      let isFine = SnapshotFuzzing.run(bytes) { chain in
        opened += 1
        SavedMachineFuzzing.look(at: chain)
      }
      #expect(isFine, "\(name)")
    }
    #expect(opened > 50)
  }

  @Test("a network's frames come whole, the guest's arrive, and none is for this host")
  func frames() throws {
    try forEachInput(of: "network-stream") { bytes, name in
      #expect(NetworkFuzzing.run(bytes), "\(name)")
    }
  }
}
