import Brokering
import CNativeCode
import Foundation
import Glibc
import LinuxSystem
import Supervisor
import TestSupport
import Testing

/// A desktop whose guest counts in its memory and on its disk, and what an administrator does
/// with it at random: the guest switches off when the two differ.
private final class SiteSoaking {
  private static let sectors = 64

  private let site: BackupSite
  private let repository: BackupRepository
  private var random: SeededGenerator
  private var snapshots: [SnapshotName] = []
  private var backups: [String] = []
  private var generation: UInt64 = 1
  private var made = 0

  init(seed: UInt64) async throws {
    random = SeededGenerator(seed: seed)
    var image = [UInt8](repeating: 0, count: 1 << 20)
    let size = cguest_copy(CGUEST_COUNTING, &image, image.count)
    try #require(size == 512)
    site = try BackupSite(image: image)
    repository = try site.repository()
    try await site.start(generation)
    try await awaitTurn()
  }

  /// - Returns: what was done.
  func cycle() async throws -> String {
    let action = try await act()
    try await awaitTurn()
    return action
  }

  /// As many snapshots and backups as a desktop comes to that is never stopped, none of which
  /// anybody keeps.
  ///
  /// - Returns: how many images there were under the disk.
  func runOn(_ count: Int) async throws -> [Int] {
    var counts: [Int] = []
    for number in 1...count {
      if number % 6 == 0 {
        try await backUp()
      } else {
        try await takeSnapshot()
        try await site.supervisor.deleteSnapshot(snapshots.removeLast(), of: site.office)
      }
      try await awaitTurn()
      counts.append(try layers().count)
    }
    try await site.supervisor.suspend(site.office)
    try await goOn()
    try await awaitTurn()
    return counts
  }

  private func act() async throws -> String {
    switch Int.random(in: 0..<8, using: &random) {
    case 0, 1:
      try await takeSnapshot()
      return "snapshot"
    case 2, 3:
      guard let snapshot = snapshots.randomElement(using: &random) else { break }
      #expect(try await site.supervisor.revert(site.office, to: snapshot))
      try await goOn()
      return "revert"
    case 4:
      var (_, isDifference) = try await backUp()
      if Bool.random(using: &random) {
        try await awaitTurn()
        isDifference = try await backUp().isDifference
      }
      return isDifference ? "backup of changes" : "backup"
    case 5:
      guard let backup = backups.randomElement(using: &random) else { break }
      try await restore(backup)
      return "restore"
    default: break
    }
    try await site.supervisor.suspend(site.office)
    try await goOn()
    return "suspend"
  }

  private func takeSnapshot() async throws {
    made += 1
    let name = SnapshotName(rawValue: "s\(made)")
    try await site.supervisor.beginSnapshot(
      of: site.office,
      SnapshotRequest(name: name, shape: DesktopShape(of: site.desk.pool), quiesces: false))
    while true {
      let list = try await site.supervisor.snapshots(of: site.office)
      let snapshot = try #require(list.first { $0.name == name })
      guard case .making = snapshot.state else {
        try #require(snapshot.state == .ready && snapshot.hasMemory)
        break
      }
      try await Task.sleep(for: .milliseconds(10))
    }
    snapshots.append(name)
    if snapshots.count > 4, let index = snapshots.indices.randomElement(using: &random) {
      try await site.supervisor.deleteSnapshot(snapshots.remove(at: index), of: site.office)
    }
  }

  private func restore(_ backup: String) async throws {
    try await site.supervisor.discard(site.office)
    snapshots = []
    try await site.succeed(.restore(backup: backup, RestoreWish(), repository))
    try await goOn()
  }

  /// - Returns: it, and whether its memory is what changed since another.
  @discardableResult
  private func backUp() async throws -> (backup: String, isDifference: Bool) {
    struct Saved: Decodable { let bases: [String] }
    let backup = try #require(try await site.backUp(repository).backup)
    backups.append(backup)
    if backups.count > 4, let index = backups.indices.randomElement(using: &random) {
      backups.remove(at: index)
    }
    let saved = try Files.read("\(site.state)/desktops/office-1/memory-saved.json")
    return (backup, try !JSONDecoder().decode(Saved.self, from: Data(saved)).bases.isEmpty)
  }

  /// Has the desktop go on from backups of what changed since others, each a while later.
  ///
  /// - Returns: how many of its backups were that.
  func returnToChanges() async throws -> Int {
    var made: [String] = []
    for number in 0..<6 {
      if number % 3 == 2 { try await takeSnapshot() }
      let (backup, isDifference) = try await backUp()
      if isDifference { made.append(backup) }
      try await awaitTurn()
    }
    for backup in made.reversed() {
      try await restore(backup)
      try await awaitTurn()
    }
    return made.count
  }

  /// Starts it from the memory and the disk that are there, of which each has its numbers.
  private func goOn() async throws {
    for image in try layers() {
      let (status, output) = try site.running.directory.run("qemu-img check -q \(image)")
      // Killed, it may have lost some room, and nothing else.
      try #require([0, 3].contains(status), "\(image): \(output)")
    }
    let numbers = try numbers()
    let last = numbers.max() ?? 0
    try #require(
      last > 0
        && numbers.indices.allSatisfy { sector in
          numbers[sector] == max(0, last - (last - sector + Self.sectors) % Self.sectors)
        }, "\(numbers)")
    generation += 1
    try await site.start(generation, resumes: true)
  }

  private func layers() throws -> [String] {
    try site.files().filter { $0.hasPrefix("disk-") }
      .sorted { ($0.count, $0) < ($1.count, $1) }
      .map { "\(site.state)/desktops/office-1/\($0)" }
  }

  /// What is in the disk's sectors.
  private func numbers() throws -> [Int] {
    let top = try #require(try layers().last)
    let (status, output) = try site.running.directory.run(
      "rm -f raw && qemu-img convert -O raw \(top) raw")
    try #require(status == 0, "\(output)")
    let bytes = try site.running.directory.read("raw")
    return (0..<Self.sectors).map { sector in
      (0..<4).reduce(0) { $0 | Int(bytes[(Self.sectors + sector) * 512 + $1]) << ($1 * 8) }
    }
  }

  /// Waits until the guest has been around all sectors: nothing else writes now.
  private func awaitTurn() async throws {
    let process = try site.running.process()
    let before = try Self.written(by: process)
    while try Self.written(by: process) < before + Self.sectors * 512 {
      try #require(process.isRunning, "memory and disk differ")
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  /// In bytes (proc(5), /proc/pid/io).
  private static func written(by process: ProcessHandle) throws -> Int {
    let text = String(
      decoding: try Files.read("/proc/\(process.identifier)/io"), as: UTF8.self)
    let line = text.split(separator: "\n").first { $0.hasPrefix("wchar: ") }
    return try #require(line.flatMap { Int($0.dropFirst(7)) })
  }
}

@Suite(
  "Snapshots, sleep and backups of a desktop, over and over", .needsKVM,
  .needs("qemu-img", "restic"), .serialized)
struct SiteSoakTests {
  /// `make soak` does more.
  private static let cycles = Soak.cycles("SITE", usually: 12)

  @Test("never part memory and disk")
  func cycles() async throws {
    let soaking = try await SiteSoaking(seed: 3)
    var done: [String: Int] = [:]
    for number in 1...Self.cycles {
      done[try await soaking.cycle(), default: 0] += 1
      if number % 50 == 0 { print("site soak: \(number) cycles, \(done)") }
    }
    #expect(done.values.reduce(0, +) == Self.cycles)
  }

  @Test("have it go on from a backup of what changed since others, as it was then")
  func changes() async throws {
    #expect(try await SiteSoaking(seed: 5).returnToChanges() >= 2)
  }

  @Test("leave one that is never stopped no long chain of images")
  func chain() async throws {
    let counts = try await SiteSoaking(seed: 4).runOn(40)
    #expect(counts.max() == 16 && counts.filter { $0 < 4 }.count > 3, "\(counts)")
  }
}
