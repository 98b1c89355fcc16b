import LinuxSystem
import QMP
import TestSupport
import Testing

/// A guest that counts on its disk, and what an administrator does with it at random: at any
/// time disk and memory are of one instant, or the guest says so.
private final class Soaking {
  private struct Snapshot {
    let memory: String
    let layer: String
  }

  private let guest: CountingProgram
  private var random: SeededGenerator
  private var snapshots: [Snapshot] = []
  private var disk = "disk"
  private var made = 0
  /// How many images may be under the disk.
  private var depth = 0

  init(seed: UInt64) throws {
    random = SeededGenerator(seed: seed)
    guest = try CountingProgram(seed.isMultiple(of: 2) ? .virtio : .ide, .qcow2)
    try guest.awaitTurns(1)
  }

  private func name(_ kind: String) -> String {
    made += 1
    return "\(kind)\(made)"
  }

  /// - Returns: what was done.
  func cycle() throws -> String {
    let action: String
    switch Int.random(in: 0..<4, using: &random) {
    case 0:
      action = "snapshot"
      try takeSnapshot()
    case 1 where !snapshots.isEmpty:
      action = "revert"
      try revert()
    case 2 where depth > 1:
      action = "flatten"
      try sleeping { try tool("flatten \(disk)") }
      depth = 0
    default:
      action = "suspend"
      try sleeping {}
    }
    try guest.awaitTurns(1)
    try #require(guest.serial.allSatisfy { $0 == "." }, "after \(action): \(guest.serial)")
    return action
  }

  private func takeSnapshot() throws {
    let snapshot = Snapshot(memory: name("memory"), layer: disk)
    let overlay = name("overlay")
    let end = try guest.save(
      try guest.running.control(), overlay: overlay, path: snapshot.memory)
    try #require(end["status"] == "completed", "\(end)")
    snapshots.append(snapshot)
    if snapshots.count > 4 {
      let gone = snapshots.removeFirst()
      try Files.remove(guest.directory.path(gone.memory))
    }
    (disk, depth) = (overlay, depth + 1)
  }

  private func revert() throws {
    guard let snapshot = snapshots.randomElement(using: &random) else { return }
    try guest.kill()
    try check()
    let overlay = name("overlay")
    try tool("create --over qcow2:\(snapshot.layer) \(overlay)")
    try guest.restore(overlay, from: snapshot.memory)
    // As deep as any was.
    (disk, depth) = (overlay, depth + 1)
  }

  /// Suspends it, does something with what it left, and has it go on.
  private func sleeping(_ body: () throws -> Void) throws {
    let control = try guest.running.control()
    try control.execute(
      "carrel-save", ["path": .string(guest.directory.path("suspended")), "suspend": true])
    #expect(try guest.running.process.wait() == .exited(0))
    try check()
    try body()
    try check()
    try guest.restore(disk, from: "suspended")
  }

  /// After a kill some room may be lost, and nothing else.
  private func check() throws {
    try guest.shell("qemu-img check -q -f qcow2 \(disk) || test $? = 3")
  }

  private func tool(_ arguments: String) throws {
    try guest.shell(
      "cd \(guest.directory.path) && \(Programs.built("carrel-vmm")) disk \(arguments)")
  }
}

@Suite("Snapshots, returns and sleep, over and over", .needsKVM, .needs("qemu-img"))
struct CountingSoakTests {
  /// `make soak` does more.
  private static let cycles = Soak.cycles("COUNTING", usually: 12)

  @Test("never part memory and disk", arguments: [1, 2] as [UInt64])
  func cycles(seed: UInt64) throws {
    let soaking = try Soaking(seed: seed)
    var done: [String: Int] = [:]
    for number in 0..<Self.cycles / 2 {
      let action = try soaking.cycle()
      done[action, default: 0] += 1
      if number % 50 == 49 { print("soak \(seed): \(number + 1) cycles, \(done)") }
    }
    #expect(done.values.reduce(0, +) == Self.cycles / 2)
  }
}
