import LinuxSystem
import TestSupport
import Testing

/// A small Linux whose disks never rest, and what an administrator does with it at random: it
/// says so when the disk is not what it has in memory.
private final class LinuxSoaking {
  /// The machine's memory, and the disks' images at that instant.
  private struct Kept {
    let memory: String
    let layers: [String]
  }

  private let linux: BusyLinux
  private let stored: SoakBackups
  private var random: SeededGenerator
  private var snapshots: [Kept] = []
  private var backups: [Kept] = []
  private var made = 0
  /// How many images may be under a disk.
  private var depth = 0

  private static let greatestDepth = 8

  init(seed: UInt64) throws {
    random = SeededGenerator(seed: seed)
    linux = try BusyLinux()
    stored = try SoakBackups(of: linux.directory)
    // Its first serial line was a shell's.
    try suspend()
    try linux.awaitTurns(1)
  }

  /// - Returns: what was done.
  func cycle() throws -> String {
    let action = try act()
    try linux.awaitTurns(1)
    return action
  }

  private func act() throws -> String {
    switch Int.random(in: 0..<7, using: &random) {
    case 0, 1:
      snapshots.append(try keep("snapshot"))
      if snapshots.count > 3 {
        try Files.remove(linux.directory.path(snapshots.removeFirst().memory))
      }
      return "snapshot"
    case 2, 3:
      guard let snapshot = snapshots.randomElement(using: &random) else { break }
      try linux.kill()
      try goOn(from: snapshot)
      return "revert"
    case 4:
      let backup = try keep("backup")
      let layers = try linux.shell("ls -d ide* virtio* *.ide* *.virtio* | sort -u")
        .split(separator: "\n").joined(separator: " ")
      try stored.add(backup.memory, "\(layers) \(backup.memory)")
      backups.append(backup)
      return "backup"
    case 5:
      let there = backups.filter { stored.tags.contains($0.memory) }
      guard let backup = there.randomElement(using: &random) else { break }
      try linux.kill()
      try linux.shell("rm -f ide* virtio* snapshot* backup* asleep")
      snapshots = []
      try stored.restore(backup.memory)
      try goOn(from: backup)
      return "restore"
    default: break
    }
    try suspend()
    return "suspend"
  }

  /// Saves it while it runs on.
  private func keep(_ kind: String) throws -> Kept {
    made += 1
    let kept = Kept(memory: "\(kind)\(made)", layers: linux.layers)
    try linux.save(kept.memory)
    depth += 1
    return kept
  }

  private func goOn(from kept: Kept) throws {
    try linux.goOn(from: kept.memory, over: kept.layers)
    depth += 1
  }

  private func suspend() throws {
    try linux.suspend("asleep")
    if depth > Self.greatestDepth {
      for layer in linux.layers {
        try linux.shell("\(Programs.built("carrel-vmm")) disk flatten \(layer)")
      }
      depth = 0
    }
    try linux.goOn(from: "asleep")
  }
}

@Suite(
  "The small Linux at work, over and over", .needsKVM, .needsSmallLinux,
  .needs("restic", "qemu-img"), .serialized)
struct LinuxSoakTests {
  private static let cycles = Soak.cycles("LINUX", usually: 0)

  @Test(
    "never parts memory and disks, with requests under way",
    .enabled(if: Soak.cycles("LINUX", usually: 0) > 0, "takes long: 'make soak' does it"))
  func cycles() throws {
    let soaking = try LinuxSoaking(seed: 6)
    var done: [String: Int] = [:]
    for number in 1...Self.cycles {
      done[try soaking.cycle(), default: 0] += 1
      if number % 10 == 0 { print("Linux soak: \(number) cycles, \(done)") }
    }
    #expect(done.values.reduce(0, +) == Self.cycles)
  }
}
