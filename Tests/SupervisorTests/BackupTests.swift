import Brokering
import Foundation
import Glibc
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("Backups of desktops", .needsKVM, .needs("restic", "qemu-io"), .serialized)
struct BackupTests {
  private static func noise(_ count: Int) -> [UInt8] { RandomBytes.make(count) }

  @Test("bring a desktop back that is gone, its disk as it was and its memory, too")
  func roundTrip() async throws {
    let image = Self.noise(8 << 20)
    let site = try BackupSite(image: image)
    let repository = try site.repository(key: "a secret")
    try await site.start(1)
    try await site.stop()
    try site.onDisk("write -P 1 0 64k", "write -P 2 1M 64k")
    try await site.start(2)
    let first = try await site.backUp(repository)
    #expect(first.addedBytes ?? 0 > 8 << 20)
    #expect(try site.running.process().isRunning, "it runs on")
    // Nothing is left that was there for this backup only.
    #expect(
      try site.files().filter { !$0.hasSuffix(".snapshot") }
        == ["disk-1.qcow2", "disk-2.qcow2", "memory-saved.json"])
    #expect(try await site.supervisor.snapshots(of: site.office).isEmpty)
    // What was written since is in the next, and not much more.
    try await site.stop()
    try site.onDisk("write -P 3 2M 64k")
    try await site.start(3)
    let second = try await site.backUp(repository)
    #expect(second.addedBytes ?? .max < (first.addedBytes ?? 0) / 3, "the guest's memory, mostly")
    try await site.succeed(.verify(repository))

    try await site.supervisor.discard(site.office)
    let backups = try await site.store.backups(in: repository)
    #expect(backups.map(\.desktop) == [site.office, site.office])
    #expect(backups.allSatisfy { $0.owner?.rawValue == "alice" && $0.hasMemory })
    let newest = try #require(backups.last)
    let restored = try await site.succeed(
      .restore(backup: newest.id, RestoreWish(), repository))
    #expect(restored.notes == ["office-1 goes on where it was when alice logs in"])
    #expect(site.desk.results.map(\.desktop) == [site.office])
    #expect(site.desk.results.first?.hasMemory == true)
    #expect(try site.files().contains("suspended") && site.remains().isEmpty)
    try site.onDisk("read -P 1 0 64k", "read -P 2 1M 64k", "read -P 3 2M 64k")
    try await site.start(4, resumes: true)
    #expect(try commandLine(site).contains("--restore"))
    try await site.stop()

    // The library's image is the same, and so it is used; the first one is another desktop.
    let (_, chain) = try site.running.directory.run(
      "qemu-img info -U --backing-chain \(site.state)/desktops/office-1/disk-2.qcow2")
    #expect(chain.contains("\(site.state)/images/debian/image.raw"), "\(chain)")
    let wish = RestoreWish(desktop: DesktopID(rawValue: "office-7"))
    site.desk.lead(by: DesktopWay(name: "alice/office-7", plain: site.office))
    let beside = try await site.succeed(
      .restore(backup: try #require(backups.first).id, wish, repository))
    #expect(
      beside.notes == [
        "office-7 goes on where it was when alice logs in as 'alice/office-7' ('alice' alone leads "
          + "to office-1)"
      ])
    try site.onDisk("read -P 1 0 64k", "read -P 2 1M 64k", of: "office-7")
    try await site.start(2, "office-7", resumes: true)
    try await site.supervisor.discard(DesktopID(rawValue: "office-7"))
  }

  private func commandLine(_ site: BackupSite) throws -> String {
    String(
      decoding: try Files.read("/proc/\(site.running.process().identifier)/cmdline"),
      as: UTF8.self)
  }

  @Test("have the memory: a guest goes on that could not boot")
  func memory() async throws {
    let site = try BackupSite()
    let repository = try site.repository()
    _ = try site.running.directory.write(SmallGuest.sleeping, to: "guest.elf")
    try await site.start(1)
    // Of one that is suspended, what it was saved to is taken.
    try await site.backUp(repository)
    try await site.supervisor.suspend(site.office)
    try await site.backUp(repository)
    #expect(try site.files() == ["suspended", "suspended.workingset"])
    try await site.supervisor.discard(site.office)
    _ = try site.running.directory.write(SmallGuest.crashing, to: "guest.elf")
    for (index, backup) in try await site.store.backups(in: repository).enumerated() {
      #expect(backup.hasMemory)
      let generation = UInt64(index * 2 + 2)
      try await site.succeed(.restore(backup: backup.id, RestoreWish(), repository))
      let stored = try FileDescriptor.open(site.state + "/desktops/office-1/suspended").storedBytes
      #expect(stored < 4 << 20, "memory that nobody wrote takes no room")
      try await site.start(generation, resumes: true)
      let process = try site.running.process()
      try await site.backUp(repository)
      #expect(process.isRunning, "it sleeps as it did")
      try await site.stop()
      // The other guest does not.
      try? await site.start(generation + 1)
      while (try? site.running.process())?.isRunning == true {
        try await Task.sleep(for: .milliseconds(10))
      }
      try await site.supervisor.discard(site.office)
    }
  }

  @Test("whose image is not the library's any more have their own")
  func otherImage() async throws {
    let site = try BackupSite(image: [UInt8](repeating: 7, count: 2 << 20))
    let repository = try site.repository()
    try await site.start(1)
    try await site.stop()
    try site.onDisk("write -P 1 0 64k")
    try await site.backUp(repository)
    try await site.supervisor.discard(site.office)
    let other = try BackupSite(image: [UInt8](repeating: 9, count: 2 << 20), after: site)
    let backup = try #require(try await other.store.backups(in: repository).first)
    #expect(!backup.hasMemory)
    other.desk.lead(by: nil)
    let unreached = try await other.succeed(
      .restore(backup: backup.id, RestoreWish(), repository))
    #expect(
      unreached.notes == [
        "office-1 boots, and no login leads to it now: see 'carrel explain user alice'"
      ])
    #expect(try other.files() == ["disk-1.qcow2", "disk.raw"])
    #expect(other.desk.results.first?.hasMemory == false)
    try other.onDisk("read -P 1 0 64k", "read -P 7 64k 1M")
    // The same bytes under another time are the library's.
    try await other.supervisor.discard(other.office)
    let same = try BackupSite(image: [UInt8](repeating: 7, count: 2 << 20), after: other)
    try await same.succeed(.restore(backup: backup.id, RestoreWish(), repository))
    #expect(try same.files() == ["disk-1.qcow2"])
    try same.onDisk("read -P 1 0 64k", "read -P 7 64k 1M")
    try await same.start(2)
    try await same.supervisor.discard(same.office)
  }

  @Test("are not opened with another key, nor taken of what became somebody else's")
  func refusals() async throws {
    let site = try BackupSite(image: [UInt8](repeating: 7, count: 1 << 20))
    try await site.start(1)
    try await site.stop()
    let repository = try site.repository(key: "a secret")
    let backup = try await site.backUp(repository)
    for key in [nil, "another"] {
      let wrong = try site.repository(key: key)
      let problem = try await site.problem(.run([site.office], wrong))
      #expect(problem.contains("the key does not open"), "\(problem)")
      await #expect(throws: BrokerError.self) { try await site.store.backups(in: wrong) }
      let restore = try await site.problem(
        .restore(backup: backup.backup ?? "", RestoreWish(), wrong))
      #expect(restore.contains("the key does not open"), "\(restore)")
    }
    #expect(
      try await site.problem(.restore(backup: "ffffffff", RestoreWish(), repository))
        .contains("there is no backup"))
    #expect(
      try await site.problem(.verify(try site.repository("none"))).contains("there are no backups"))
    _ = try site.running.directory.run("mkdir other && touch other/thing")
    #expect(
      try await site.problem(.run([site.office], try site.repository("other")))
        .contains("other things"))
    // Nor where there is no directory, or none can be.
    _ = try site.running.directory.run("touch thing")
    let file = try site.repository("thing")
    for work in [BackupWork.run([site.office], file), .verify(file)] {
      let problem = try await site.problem(work)
      #expect(problem.contains("thing is a file, and backups are in a directory"), "\(problem)")
    }
    let nowhere = site.running.directory.path("none/office.carrel")
    let unwritten = try await site.problem(.export(site.office, file: nowhere))
    #expect(unwritten.contains("there is no directory") && unwritten.contains("make it"))
    // A desktop that is there is not written over.
    let taken = try await site.problem(
      .restore(backup: backup.backup ?? "", RestoreWish(), repository))
    #expect(taken.contains("put") && site.remains().isEmpty, "\(taken)")
    try site.onDisk("read -P 7 0 64k")
    // Nor is one left that nobody knows.
    site.desk.refuse()
    let unknown = try await site.problem(
      .restore(
        backup: backup.backup ?? "", RestoreWish(desktop: DesktopID(rawValue: "office-5")),
        repository))
    #expect(unknown.contains("the pool is full"), "\(unknown)")
    #expect(!Files.exists(site.state + "/desktops/office-5"))
  }

  @Test("end when they are cancelled, and one is made at a time")
  func cancelled() async throws {
    let site = try BackupSite(image: Self.noise(64 << 20))
    let repository = try site.repository()
    try await site.start(1)
    try await site.stop()
    let job = try await site.store.begin(.run([site.office], repository), for: site.desk)
    let error = await #expect(throws: BrokerError.self) {
      try await site.store.begin(.verify(repository), for: site.desk)
    }
    #expect(error?.context.contains("'carrel backup cancel \(job.id)'") == true)
    try await site.store.cancel(job.id)
    let ended = try await site.end(of: job)
    #expect(ended.state == .failed(problem: "it was cancelled"), "\(ended.state)")
    let late = await #expect(throws: BrokerError.self) {
      try await site.store.cancel(job.id)
    }
    #expect(late?.kind == .conflict && late?.context.contains("is done already") == true)
    #expect(await site.store.jobs().map(\.id) == [job.id], "what became of it is still told")
    #expect(try !site.files().contains { $0.hasPrefix("snapshot-") || $0 == "backup.json" })
  }

  @Test("go on after restic was killed with what it had written, and leave no lock behind")
  func killed() async throws {
    let size: UInt64 = 128 << 20
    let site = try BackupSite(image: Self.noise(Int(size)))
    let repository = try site.repository()
    try await site.start(1)
    try await site.stop()
    let job = try await site.store.begin(.run([site.office], repository), for: site.desk)
    try await offPool {
      while true {
        guard Self.dataBytes(in: repository) > 64 << 20,
          let process = Self.restic(in: repository)
        else { continue }
        #expect(kill(process, SIGKILL) == 0)
        return
      }
    }
    let ended = try await site.end(of: job)
    #expect(ended.state != .ready && ended.results.first?.problem != nil)
    let added = try #require(try await site.backUp(repository).addedBytes)
    #expect(added < size - 24 << 20, "\(added) bytes were written again")
    try await site.succeed(.verify(repository))
    let locks = try FileManager.default.contentsOfDirectory(atPath: repository.path + "/locks")
    #expect(locks.isEmpty)
    let names = try FileManager.default.contentsOfDirectory(atPath: repository.path)
    #expect(Set(names) == ["config", "data", "index", "keys", "locks", "snapshots"])
    #expect(try site.files() == ["disk-1.qcow2", "disk-2.qcow2", "disk-3.qcow2"])
    // The same for a whole carreld that is killed: the next one removes what it left.
    let stray = site.state + "/backups/6e7a2b0c"
    try FileManager.default.createDirectory(
      atPath: stray + "/files/desktops", withIntermediateDirectories: true)
    _ = try BackupSite(image: [7], after: site)
    #expect(!Files.exists(stray))
  }

  /// What its packs take.
  private static func dataBytes(in repository: BackupRepository) -> UInt64 {
    let root = repository.path + "/data"
    let paths = (try? FileManager.default.subpathsOfDirectory(atPath: root)) ?? []
    return paths.filter { $0.count > 64 }.reduce(0) { sum, path in
      sum + ((try? FileDescriptor.open("\(root)/\(path)").size()) ?? 0)
    }
  }

  /// The process that backs up to that repository.
  private static func restic(in repository: BackupRepository) -> Int32? {
    HostProcess.all(mentioning: repository.path).first { $0.words.contains("backup") }?
      .identifier
  }

  @Test("that there is no room for say so, and harm nothing", .needsRoot)
  func full() async throws {
    let small = try SmallDisk(kibibytes: 3072)
    let site = try BackupSite(image: Self.noise(8 << 20))
    try await site.start(1)
    try await site.stop()
    let problem = try await site.problem(
      .run([site.office], try site.repository(small.path + "/backups")))
    #expect(problem.contains("no room"), "\(problem)")
    #expect(try site.files() == ["disk-1.qcow2", "disk-2.qcow2"])
    let elsewhere = try site.repository()
    try await site.backUp(elsewhere)
  }

  @Test(
    "are not restored where there is no room, which is told before anything is fetched", .needsRoot)
  func noRoomToRestore() async throws {
    let site = try BackupSite(image: Self.noise(4 << 20))
    let repository = try site.repository()
    try await site.start(1)
    try await site.stop()
    try site.onDisk("write -P 1 0 64k")
    let backup = try #require(try await site.backUp(repository).backup)
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.export(site.office, file: file))
    let small = try SmallDisk(kibibytes: 3072)
    let other = try BackupSite(image: [7], state: small.path)
    let before = try FileManager.default.subpathsOfDirectory(atPath: small.path)
    for work in [
      BackupWork.restore(backup: backup, RestoreWish(), repository),
      .importFile(file, RestoreWish()),
    ] {
      let job = try await other.perform(work)
      guard case .failed(let problem) = job.state else {
        Issue.record("there was room")
        continue
      }
      #expect(problem.contains("it needs 4") && problem.contains("KiB"), "\(problem)")
      #expect(problem.contains("\(small.path) has ") && problem.contains(" free"), "\(problem)")
      #expect(job.problemKind == .storage)
      #expect(try FileManager.default.subpathsOfDirectory(atPath: small.path) == before)
      #expect(other.desk.results.isEmpty && !other.desk.wasAsked)
    }
    // The image that is there already takes none.
    let same = try SmallDisk(kibibytes: 5 << 10)
    let roomy = try BackupSite(after: nil, state: same.path)
    try Self.copyImage(from: site, to: roomy)
    let job = try await roomy.perform(.restore(backup: backup, RestoreWish(), repository))
    #expect(job.state == .ready)
  }

  /// With its time, so that it is taken for the same.
  private static func copyImage(from site: BackupSite, to other: BackupSite) throws {
    let (status, output) = try site.running.directory.run(
      "mkdir -p \(other.state)/images && cp -a \(site.state)/images/debian \(other.state)/images/")
    #expect(status == 0, "\(output)")
  }

  @Test("that were damaged are told by verify")
  func damaged() async throws {
    let site = try BackupSite(image: Self.noise(2 << 20))
    let repository = try site.repository()
    try await site.start(1)
    try await site.stop()
    try await site.backUp(repository)
    try await site.succeed(.verify(repository))
    let (_, found) = try site.running.directory.run(
      "find backups/data -type f -size +1M | head -1")
    let file = site.running.directory.path(found.trimmingCharacters(in: .whitespacesAndNewlines))
    _ = try site.running.directory.run("chmod u+w \(file)")
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: file))
    try handle.seek(toOffset: 100_000)
    let byte = try #require(try handle.read(upToCount: 1)?.first)
    try handle.seek(toOffset: 100_000)
    try handle.write(contentsOf: Data([byte ^ 1]))
    try handle.close()
    let problem = try await site.problem(.verify(repository))
    #expect(problem.contains("is damaged"), "\(problem)")
  }

  @Test("stay as many as are wanted, of each owner")
  func retention() async throws {
    let site = try BackupSite(image: [UInt8](repeating: 7, count: 1 << 20))
    let repository = try site.repository()
    try await site.start(1)
    try await site.stop()
    for _ in 0..<3 { try await site.backUp(repository) }
    site.desk.give(to: "bob")
    try await site.backUp(repository)
    let all = try await site.store.backups(in: repository)
    #expect(all.count == 4)
    // None but one is older than an hour.
    let tags = [
      "carrel", "desktop=\(all[0].desktop)", "owner=\(all[0].owner?.rawValue ?? "")",
      "pool=office", "created=1580702706000", "bytes=1", "memory=false",
    ].joined(separator: ",")
    let (status, output) = try site.running.directory.run(
      "echo carrel > key && restic -r \(repository.path) --no-cache --password-file key backup"
        + " --time '2020-02-03 04:05:06' --tag \(tags) key")
    try #require(status == 0, "\(output)")
    #expect(try await site.store.backups(in: repository).count == 5)
    let aged = try await site.succeed(
      .prune(.all, try Retention(last: nil, within: "1h"), repository))
    #expect(aged.notes == ["1 of 5 backups were removed"])
    #expect(try await site.store.backups(in: repository) == all)
    try await site.succeed(
      .prune(
        .desktop(DesktopID(rawValue: "other-1")), try Retention(last: 1, within: nil), repository))
    #expect(try await site.store.backups(in: repository) == all)
    let job = try await site.succeed(
      .prune(.pool(site.desk.pool.name), try Retention(last: 1, within: nil), repository))
    #expect(job.notes == ["2 of 4 backups were removed"])
    #expect(try await site.store.backups(in: repository) == Array(all.suffix(2)))
    try await site.succeed(.verify(repository))
    #expect(throws: BrokerError.self) { try Retention(last: nil, within: nil) }
    #expect(throws: BrokerError.self) { try Retention(last: nil, within: "--prune") }
    #expect(throws: BrokerError.self) { try Retention(last: 0, within: nil) }
  }
}
