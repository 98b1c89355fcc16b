import Brokering
import Foundation
import Glibc
import LinuxSystem
import Supervisor
import TestSupport
import Testing

/// The memory that a desktop's VMM saved last, as it is written down beside it.
private struct Saved: Decodable {
  let memory: String
  let bases: [String]
}

extension BackupSite {
  /// A desktop with 8 MiB of noise in its memory, which sleeps.
  fileprivate static func sleeping(
    after earlier: BackupSite? = nil, failpoints: Failpoints = .none
  ) throws -> BackupSite {
    let site = try BackupSite(after: earlier, memoryMiB: 32, failpoints: failpoints)
    if earlier == nil {
      _ = try site.running.directory.write(
        SmallGuest.sleeping(with: RandomBytes.make(8 << 20)), to: "guest.elf")
    }
    return site
  }

  fileprivate func saved(_ desktop: String = "office-1") throws -> Saved {
    let bytes = try Files.read("\(state)/desktops/\(desktop)/memory-saved.json")
    return try JSONDecoder().decode(Saved.self, from: Data(bytes))
  }

  /// The files with memories.
  fileprivate func memories(_ desktop: String = "office-1") throws -> [String] {
    try files(desktop).filter { $0.hasSuffix(".snapshot") }
  }

  fileprivate func path(of memory: String) -> String {
    "\(state)/desktops/office-1/\(memory).snapshot"
  }

  /// Waits until nothing is there but what a desktop without a VMM has.
  fileprivate func awaitSwept() async throws {
    let deadline = ContinuousClock.now + .seconds(20)
    while true {
      let left = try files().filter { $0.contains("snapshot") || $0 == "memory-saved.json" }
      if left.isEmpty { return }
      try #require(ContinuousClock.now < deadline, "\(left)")
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  @discardableResult
  fileprivate func take(_ name: String) async throws -> DesktopSnapshot {
    try await supervisor.beginSnapshot(
      of: office,
      SnapshotRequest(
        name: SnapshotName(rawValue: name), shape: DesktopShape(of: desk.pool), quiesces: false))
    while true {
      let found = try await supervisor.snapshots(of: office).first { $0.name.rawValue == name }
      let snapshot = try #require(found)
      guard case .making = snapshot.state else {
        try #require(snapshot.state == .ready)
        return snapshot
      }
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  fileprivate func delete(_ name: String) async throws {
    try await supervisor.deleteSnapshot(SnapshotName(rawValue: name), of: office)
  }

  fileprivate func revert(to name: String) async throws {
    #expect(try await supervisor.revert(office, to: SnapshotName(rawValue: name)))
  }

  /// Restores one under a name and has it go on.
  fileprivate func bringBack(_ backup: String?, as name: String, in repository: BackupRepository)
    async throws
  {
    let desktop = DesktopID(rawValue: name)
    try await succeed(
      .restore(backup: try #require(backup), RestoreWish(desktop: desktop), repository))
    try await start(2, name, resumes: true)
    #expect(try running.process(of: name).isRunning)
    try await supervisor.discard(desktop)
  }
}

@Suite("The memory of a running desktop's backups", .needsKVM, .needs("restic"), .serialized)
struct MemoryBackupTests {
  private static func status(_ path: String) throws -> stat {
    var status = stat()
    try #require(lstat(path, &status) == 0)
    return status
  }

  @Test("is what changed since the last, which stays for it and is not read again")
  func differential() async throws {
    let site = try BackupSite.sleeping()
    let repository = try site.repository()
    try await site.start(1)
    let first = try await site.backUp(repository)
    #expect(first.addedBytes ?? 0 > 8 << 20)
    let base = try site.saved()
    #expect(base.bases.isEmpty)
    #expect(try site.files() == ["\(base.memory).snapshot", "memory-saved.json"].sorted())
    let before = try Self.status(site.path(of: base.memory))
    let second = try await site.backUp(repository)
    #expect(second.addedBytes ?? .max < 1 << 20)
    let saved = try site.saved()
    #expect(saved.bases == [base.memory])
    #expect(try Set(site.memories()) == ["\(base.memory).snapshot", "\(saved.memory).snapshot"])
    // Also of its length, holes and all, a backup reads little.
    #expect(try Self.status(site.path(of: saved.memory)).st_size < 2 << 20)
    #expect(try await site.supervisor.snapshots(of: site.office).isEmpty)
    // The base is the same in all that is compared with the backup before.
    let after = try Self.status(site.path(of: base.memory))
    #expect(after.st_ino == before.st_ino && after.st_nlink == 1)
    #expect(after.st_ctim.tv_sec == before.st_ctim.tv_sec)
    #expect(after.st_ctim.tv_nsec == before.st_ctim.tv_nsec)
    let (status, output) = try site.running.directory.run(
      """
      cd \(site.state) && RESTIC_PASSWORD=carrel restic -r \(repository.path) --no-cache \
        backup --dry-run --json --parent \(try #require(second.backup)) \
        desktops/office-1/\(base.memory).snapshot
      """)
    #expect(status == 0 && output.contains("\"files_unmodified\":1"), "\(output)")
    try await site.succeed(.verify(repository))

    try await site.stop()
    try await site.awaitSwept()
    try await site.supervisor.discard(site.office)
    try await restored(site, repository, second.backup, [base.memory, saved.memory])
    try await site.bringBack(first.backup, as: "office-2", in: repository)
  }

  private func restored(
    _ site: BackupSite, _ repository: BackupRepository, _ backup: String?, _ memories: [String]
  ) async throws {
    let place = "\(site.state)/desktops/office-1"
    try await site.succeed(
      .restore(backup: try #require(backup), RestoreWish(), repository))
    #expect(
      try Set(site.files())
        == Set(memories.map { "\($0).snapshot" } + ["suspended", "suspended-bases.json"]))
    for name in try site.files() where name.hasSuffix("d") || name.hasSuffix("t") {
      #expect(try FileDescriptor.open("\(place)/\(name)").storedBytes < 12 << 20)
    }
    // What it goes on from is in a backup with all that it needs, and so on.
    let again = try await site.backUp(repository)
    #expect(again.addedBytes ?? .max < 1 << 20)
    try await site.bringBack(again.backup, as: "office-3", in: repository)
    let file = site.running.directory.path("suspended.carrel")
    try await site.succeed(.export(site.office, file: file))
    let wish = RestoreWish(desktop: DesktopID(rawValue: "office-4"))
    try await site.succeed(.importFile(file, wish))
    #expect(try site.memories("office-4").count == 2)

    // Once it has gone on nothing needs them; what it saves then is whole.
    try await site.start(3, resumes: true)
    let next = try await site.backUp(repository)
    #expect(try site.saved().bases.isEmpty && site.memories().count == 1)
    #expect(try !site.files().contains("suspended-bases.json"))
    try await site.supervisor.suspend(site.office)
    #expect(try site.files() == ["suspended", "suspended.workingset"])
    try await site.start(4, resumes: true)
    try await site.take("one")
    try await site.revert(to: "one")
    try await site.start(5, resumes: true)
    #expect(try site.running.process().isRunning)
    try await site.bringBack(next.backup, as: "office-5", in: repository)
    // Somebody starts it anew.
    try await site.start(2, "office-4")
    #expect(try site.memories("office-4").isEmpty)
    for name in ["office-1", "office-4"] {
      try await site.supervisor.discard(DesktopID(rawValue: name))
    }
  }

  @Test("builds upon snapshots, and they upon it")
  func snapshots() async throws {
    let site = try BackupSite.sleeping()
    let repository = try site.repository()
    try await site.start(1)
    try await site.backUp(repository)
    let base = try site.saved().memory
    #expect(try await site.take("one").isDifferential)
    let one = try site.saved()
    #expect(one.bases == [base])
    let second = try await site.backUp(repository)
    #expect(second.addedBytes ?? .max < 1 << 20)
    let saved = try site.saved()
    #expect(saved.bases == [base, one.memory])
    // What the next backup needs stays, and so does what a snapshot needs.
    try await site.take("two")
    try await site.delete("one")
    #expect(try site.memories().count == 4)
    // As it goes on, it is backed up with all of it, which another host has not.
    try await site.revert(to: "two")
    #expect(try !site.files().contains("memory-saved.json"))
    #expect(try site.memories().count == 4)
    let resting = try await site.backUp(repository)
    #expect(try site.memories().count == 4)
    try await site.bringBack(resting.backup, as: "office-2", in: repository)
    try await site.start(2, resumes: true)
    try await site.backUp(repository)
    #expect(try site.saved().bases.isEmpty)
    try await site.delete("two")
    #expect(try site.memories() == ["\(try site.saved().memory).snapshot"])
    // What was saved last is gone with its snapshot: the next is whole.
    try await site.take("three")
    try await site.delete("three")
    #expect(try site.memories().isEmpty)
    try await site.backUp(repository)
    #expect(try site.saved().bases.isEmpty && site.memories().count == 1)
    try await site.bringBack(second.backup, as: "office-2", in: repository)
    try await site.supervisor.discard(site.office)
    #expect(!Files.exists("\(site.state)/desktops/office-1"))
  }

  @Test("is whole again after some, or when much has changed")
  func limits() async throws {
    let site = try BackupSite.sleeping()
    let repository = try site.repository()
    try await site.start(1)
    var depths: [Int] = []
    for _ in 0..<10 {
      try await site.backUp(repository)
      depths.append(try site.saved().bases.count)
      // The last is the base of none.
      let isBase = depths.last ?? 0 < 8
      #expect(try site.memories().count == (isBase ? site.saved().bases.count + 1 : 0))
    }
    #expect(depths == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    try await site.supervisor.discard(site.office)

    let busy = try BackupSite(memoryMiB: 16)
    _ = try busy.running.directory.write(SmallGuest.rewriting(memoryMiB: 16), to: "guest.elf")
    try await busy.start(1)
    depths = []
    for _ in 0..<3 {
      try await busy.backUp(repository)
      depths.append(try busy.saved().bases.count)
      #expect(try busy.memories().count == (depths.last == 0 ? 1 : 0))
    }
    #expect(depths == [0, 1, 0])
    try await busy.supervisor.discard(busy.office)
  }

  @Test("is whole for another VMM, and in a file for another site")
  func wholes() async throws {
    let site = try BackupSite.sleeping()
    let repository = try site.repository()
    try await site.start(1)
    try await site.backUp(repository)
    let process = try site.running.process()
    try process.send(.kill)
    try await site.awaitSwept()
    try await site.start(2)
    try await site.backUp(repository)
    try await site.backUp(repository)
    #expect(try site.saved().bases.count == 1)
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.export(site.office, file: file))
    let (_, list) = try site.running.directory.run("tar -tf \(file)")
    #expect(list.split(separator: "\n").count { $0.hasSuffix(".snapshot") } == 1, "\(list)")
    let (_, manifest) = try site.running.directory.run(
      "tar -xOf \(file) desktops/office-1/backup.json")
    #expect(manifest.contains("\"version\":1") && !manifest.contains("memoryBases"))
    #expect(try site.saved().bases.isEmpty && site.memories().count == 1)
    try await site.backUp(repository)
    #expect(try site.saved().bases.count == 1)
    // It begins anew, with nothing of before.
    try await site.start(1)
    try await site.supervisor.stop(site.office, graceSeconds: nil)
    try await site.start(1)
    #expect(try site.files().isEmpty)
    try await site.supervisor.discard(site.office)
  }

  @Test(
    "is right after carreld was killed, and leaves nothing",
    arguments: [("supervisor.snapshot.saved", 0), ("supervisor.snapshot.noted", 2)])
  func killed(at failpoint: String, depth: Int) async throws {
    let first = try BackupSite.sleeping()
    let repository = try first.repository()
    try await first.start(1)
    try await first.backUp(repository)
    let reached = Guarded(false)
    let isOver = Guarded(false)
    let doomed = try BackupSite.sleeping(
      after: first,
      failpoints: Failpoints { name in
        guard name == failpoint else { return }
        reached.change { $0 = true }
        isOver.wait(until: { $0 }) { _ in }
      })
    _ = try await doomed.supervisor.survey()
    let job = try await doomed.store.begin(.run([doomed.office], repository), for: doomed.desk)
    try await offPool { reached.wait(until: { $0 }) { _ in } }

    let site = try BackupSite.sleeping(after: first)
    _ = try await site.supervisor.survey()
    let backup = try await site.backUp(repository)
    #expect(try site.saved().bases.count == depth)
    #expect(try site.memories().count == depth + 1)
    try await site.succeed(.verify(repository))
    try await site.stop()
    try await site.awaitSwept()
    try await site.bringBack(backup.backup, as: "office-2", in: repository)
    // What is left where no VMM runs any more goes when the next carreld looks.
    for name in ["\(UUID().uuidString.lowercased()).snapshot", "memory-saved.json"] {
      try Files.replace("\(site.state)/desktops/office-1/\(name)", with: Array("{}".utf8))
    }
    let last = try BackupSite.sleeping(after: first)
    _ = try await last.supervisor.survey()
    try await last.awaitSwept()
    try await last.supervisor.discard(last.office)
    isOver.change { $0 = true }
    _ = try await doomed.end(of: job)
  }

  @Test("keeps no image of the disk from being merged", .needs("qemu-img"))
  func merging() async throws {
    let site = try BackupSite(image: [UInt8](repeating: 7, count: 1 << 20))
    let repository = try site.repository()
    try await site.start(1)
    func layers() throws -> Int { try site.files().count { $0.hasPrefix("disk-") } }
    for number in 1...14 {
      try await site.take("s\(number)")
      try await site.delete("s\(number)")
    }
    try await site.backUp(repository)
    #expect(try layers() == 16 && site.memories().count == 1)
    try await site.backUp(repository)
    #expect(try layers() < 4 && site.saved().bases.count == 1)
    try await site.supervisor.discard(site.office)
  }

  /// An archive of a memory, which another is needed for, that somebody unpacked.
  private struct Unpacked {
    let place: String
    var manifest: [String: Any]

    init(in place: String) throws {
      self.place = place
      let bytes = try Files.read("\(place)/desktops/office-1/backup.json")
      manifest = try #require(
        try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
    }

    var bases: [String] {
      get { manifest["memoryBases"] as? [String] ?? [] }
      set { manifest["memoryBases"] = newValue }
    }

    var memory: String { manifest["memory"] as? String ?? "" }

    private var entries: [[String: Any]] {
      get { manifest["files"] as? [[String: Any]] ?? [] }
      set { manifest["files"] = newValue }
    }

    var files: [String] { entries.compactMap { $0["path"] as? String } }

    mutating func removeFile(_ path: String) {
      entries.removeAll { $0["path"] as? String == path }
    }

    /// Gives the base another name.
    mutating func moveBase(to path: String) throws {
      let base = bases[0]
      try Files.makeDirectory("\(place)/desktops/office-2")
      try Files.move("\(place)/\(base)", to: "\(place)/\(path)")
      entries = entries.map { entry in
        guard entry["path"] as? String == base else { return entry }
        return entry.merging(["path": path]) { $1 }
      }
      bases = [path]
    }

    /// Has the base be the same as what needs it.
    mutating func replaceBase() throws {
      let bytes = try Files.read("\(place)/\(memory)", limit: 1 << 30)
      try Files.replace("\(place)/\(bases[0])", with: bytes)
      let base = bases[0]
      entries = entries.map { entry in
        guard entry["path"] as? String == base else { return entry }
        return entry.merging(["size": bytes.count, "stored": bytes.count]) { $1 }
      }
    }

    func store() throws {
      let bytes = try JSONSerialization.data(withJSONObject: manifest)
      try Files.replace("\(place)/desktops/office-1/backup.json", with: bytes)
    }
  }

  private static let attacks: [@Sendable (inout Unpacked) throws -> Void] = [
    { $0.manifest["memoryBases"] = nil },
    { $0.manifest["version"] = 1 },
    { $0.bases.append($0.memory) },
    { $0.bases.append($0.bases[0]) },
    { $0.bases.append("desktops/office-1/../../../etc") },
    { try $0.moveBase(to: "desktops/office-2/\($0.bases[0].split(separator: "/")[2])") },
    { try $0.moveBase(to: "desktops/office-1/other.snapshot") },
    { try $0.moveBase(to: "desktops/office-1/suspended-bases.json") },
    {
      $0.removeFile($0.memory)
      $0.manifest["memory"] = nil
    },
  ]

  @Test("from elsewhere is refused where it is not what it says, and without its base not used")
  func hostile() async throws {
    let site = try BackupSite.sleeping()
    let repository = try site.repository()
    try await site.start(1)
    try await site.backUp(repository)
    let backup = try await site.backUp(repository)
    let saved = try site.saved()
    try await site.supervisor.discard(site.office)
    try await site.succeed(
      .restore(backup: try #require(backup.backup), RestoreWish(), repository))
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.export(site.office, file: file))
    try await site.supervisor.discard(site.office)
    func pack(_ change: (inout Unpacked) throws -> Void) throws -> String {
      let unpacked = try site.running.directory.run(
        "rm -rf evil && mkdir evil && cd evil && tar -xf \(file)")
      try #require(unpacked.status == 0, "\(unpacked.output)")
      var archive = try Unpacked(in: site.running.directory.path("evil"))
      try change(&archive)
      try archive.store()
      let (status, output) = try site.running.directory.run(
        """
        cd evil && tar --zstd --sparse -cf ../evil.carrel desktops/office-1/backup.json \
          \(archive.files.joined(separator: " "))
        """)
      try #require(status == 0, "\(output)")
      return site.running.directory.path("evil.carrel")
    }
    for (number, attack) in Self.attacks.enumerated() {
      let problem = try await site.problem(.importFile(try pack(attack), RestoreWish()))
      #expect(problem.contains("what it says about itself is wrong"), "\(number): \(problem)")
      #expect(site.remains().isEmpty && !Files.exists("\(site.state)/desktops/office-1"))
    }
    // Another memory under its name is found when it is to go on, as is none.
    try await site.succeed(.importFile(try pack { try $0.replaceBase() }, RestoreWish()))
    #expect(try await refusal(site).contains("builds upon another snapshot"))
    try await site.supervisor.discard(site.office)
    try await site.succeed(.importFile(try pack { _ in }, RestoreWish()))
    // All of a base is checked before it is gone on from: 3 MiB into the guest is noise.
    let base = try FileHandle(
      forUpdating: URL(fileURLWithPath: site.path(of: saved.bases[0])))
    try base.seek(toOffset: 4 << 20)
    let byte = try #require(try base.read(upToCount: 1)?.first)
    try base.seek(toOffset: 4 << 20)
    try base.write(contentsOf: Data([byte ^ 1]))
    try base.close()
    #expect(try await refusal(site).contains("is damaged"))
    try Files.remove(site.path(of: saved.bases[0]))
    #expect(try await refusal(site).contains("builds upon one that is not there"))
    try await site.supervisor.discard(site.office)
  }

  private func refusal(_ site: BackupSite) async throws -> String {
    let error = await #expect(throws: LaunchError.self) { try await site.start(2, resumes: true) }
    return "\(try #require(error))"
  }
}
