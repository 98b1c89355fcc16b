import Brokering
import Foundation
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("Snapshots of desktops", .needsKVM, .serialized)
struct SnapshotTests {
  private let office = DesktopID(rawValue: "office-1")

  private func state(_ running: RunningSupervisor) -> String {
    running.settings.stateDirectory + "/desktops/office-1"
  }

  private func files(_ running: RunningSupervisor) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: state(running)).sorted()
  }

  private func request(
    _ name: String, _ running: RunningSupervisor, quiesces: Bool = false
  ) -> SnapshotRequest {
    let hasDisk = (try? files(running).contains { $0.hasPrefix("disk-") }) == true
    let pool = Pool(
      name: PoolName(rawValue: "office"), kind: .dedicated,
      image: Image(kind: hasDisk ? .disk : .kernel, path: running.guest), memoryMiB: 16, size: 1,
      spares: 0,
      policies: PoolPolicies(), created: Timestamp(milliseconds: 0))
    return SnapshotRequest(
      name: SnapshotName(rawValue: name), shape: DesktopShape(of: pool), quiesces: quiesces)
  }

  /// Takes one, and waits until it is there.
  @discardableResult
  private func take(
    _ name: String, _ running: RunningSupervisor, quiesces: Bool = false
  ) async throws -> DesktopSnapshot {
    try await running.supervisor.beginSnapshot(
      of: office, request(name, running, quiesces: quiesces))
    while true {
      let found = try await running.supervisor.snapshots(of: office)
        .first { $0.name.rawValue == name }
      let snapshot = try #require(found)
      switch snapshot.state {
      case .making: try await Task.sleep(for: .milliseconds(10))
      case .ready: return snapshot
      case .failed(let problem):
        Issue.record("\(problem)")
        return snapshot
      }
    }
  }

  private func names(_ running: RunningSupervisor) async throws -> [String] {
    try await running.supervisor.snapshots(of: office).map(\.name.rawValue)
  }

  private func revert(_ name: String, _ running: RunningSupervisor) async throws -> Bool {
    try await running.supervisor.revert(office, to: SnapshotName(rawValue: name))
  }

  private func delete(_ name: String, _ running: RunningSupervisor) async throws {
    try await running.supervisor.deleteSnapshot(SnapshotName(rawValue: name), of: office)
  }

  @Test("are a tree, of which each goes on when it is wanted")
  func tree() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    // Its name is like those of other files.
    try await take("a.snapshot", running)
    try await delete("a.snapshot", running)
    let first = try await take("first", running)
    #expect(first.hasMemory && first.parent == nil && first.isCurrent && !first.isDifferential)
    #expect(first.memoryBytes > 0 && first.pauseMicroseconds ?? 0 > 0)
    let second = try await take("second", running)
    #expect(second.parent?.rawValue == "first" && second.isDifferential)
    let process = try running.process()
    await #expect(throws: BrokerError.self) {
      try await running.supervisor.beginSnapshot(of: office, request("second", running))
    }
    #expect(process.isRunning)

    #expect(try await revert("first", running))
    #expect(!process.isRunning)
    try await running.supervisor.start(
      try running.request(generation: 2, disk: .keep, resumes: true))
    let third = try await take("third", running)
    #expect(third.parent?.rawValue == "first")
    try await take("b.snapshot", running)
    try await delete("third", running)
    #expect(try await names(running) == ["first", "second", "b.snapshot"])
    try await delete("b.snapshot", running)
    try await take("third", running)
    #expect(try await names(running) == ["first", "second", "third"])

    // The second needs the first's memory, which stays until it goes, too.
    try await delete("first", running)
    #expect(try await revert("second", running))
    try await running.supervisor.start(
      try running.request(generation: 3, disk: .keep, resumes: true))
    let memories = { try files(running).filter { $0.hasSuffix(".snapshot") }.count }
    #expect(try memories() >= 2)
    try await delete("second", running)
    try await delete("third", running)
    #expect(try memories() == 0)
    #expect(try await names(running).isEmpty)
    await #expect(throws: BrokerError.self) { try await delete("third", running) }
  }

  @Test("of one run are whole now and then, so that one can go back to each")
  func many() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    var wholes: [Int] = []
    for number in 0..<36 {
      if try await !take("s\(number)", running).isDifferential { wholes.append(number) }
    }
    #expect(wholes == [0, 33])
    var generation: UInt64 = 1
    for number in [32, 35] {
      #expect(try await revert("s\(number)", running))
      generation += 1
      try await running.supervisor.start(
        try running.request(generation: generation, disk: .keep, resumes: true))
    }
    try await running.supervisor.discard(office)
  }

  @Test("have the desktop's disk as it was, running or off", .needs("qemu-io"))
  func disks() async throws {
    let running = try RunningSupervisor()
    let images = running.settings.stateDirectory + "/images/office"
    try FileManager.default.createDirectory(atPath: images, withIntermediateDirectories: true)
    try Files.replace("\(images)/image.raw", with: [UInt8](repeating: 0, count: 1 << 20))
    func start(_ generation: UInt64, resumes: Bool = false) async throws {
      try await running.supervisor.start(
        LaunchRequest(
          desktop: office, generation: generation,
          image: Image(kind: .disk, path: "\(images)/image.raw"), memoryMiB: 16, cpus: 1,
          disk: generation == 1 ? .fresh : .keep, resumes: resumes, user: nil,
          keyboardLayout: "en-us"))
    }
    func stop() async throws { try await running.supervisor.stop(office, graceSeconds: nil) }
    func layers() throws -> [String] { try files(running).filter { $0.hasPrefix("disk-") } }
    /// Has `qemu-io` do something with the desktop's disk.
    func onDisk(_ command: String) throws {
      let top = try #require(try layers().last)
      let (status, output) = try running.directory.run(
        "qemu-io -c '\(command)' \(state(running))/\(top)")
      #expect(status == 0 && !output.contains("failed"), "\(command) on \(top): \(output)")
    }
    try await start(1)
    try await stop()
    try onDisk("write -P 1 0 64k")
    let off = try await take("off", running)
    #expect(!off.hasMemory && off.isCurrent)
    #expect(try layers() == ["disk-1.qcow2", "disk-2.qcow2"])
    try onDisk("write -P 2 0 64k")
    #expect(try await !revert("off", running))
    #expect(try layers() == ["disk-1.qcow2", "disk-3.qcow2"])
    try onDisk("read -P 1 0 64k")
    try onDisk("write -P 3 0 64k")

    try await start(2)
    #expect(try await take("on", running).hasMemory)
    #expect(try layers() == ["disk-1.qcow2", "disk-3.qcow2", "disk-4.qcow2"])
    try await stop()
    try onDisk("write -P 4 0 64k")
    #expect(try await revert("on", running))
    try await start(3, resumes: true)
    try await stop()
    try onDisk("read -P 3 0 64k")
    #expect(try layers() == ["disk-1.qcow2", "disk-3.qcow2", "disk-5.qcow2"])

    // What a snapshot needs of the disk goes with it, unless the desktop needs it, too.
    #expect(try await !revert("off", running))
    try await delete("on", running)
    #expect(try layers() == ["disk-1.qcow2", "disk-6.qcow2"])
    try onDisk("read -P 1 0 64k")
    try await delete("off", running)
    #expect(try layers() == ["disk-1.qcow2", "disk-6.qcow2"])
    try await start(4)
    try await running.supervisor.discard(office)
    #expect(try Files.read("\(images)/image.raw").allSatisfy { $0 == 0 })
  }

  /// Says that an agent is here, and does what it is asked.
  @Sendable private static func answer(_ peer: FakeAgent.Peer) throws {
    try peer.synchronise()
    while try peer.command() != nil { try peer.say("{\"return\":2}\n") }
  }

  @Test("are taken with file systems frozen, which are thawed whatever happens")
  func quiesced() async throws {
    let running = try RunningSupervisor()
    let image = try running.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "image.raw")
    try await running.supervisor.start(
      LaunchRequest(
        desktop: office, generation: 1, image: Image(kind: .disk, path: image), memoryMiB: 16,
        cpus: 1, disk: .fresh, user: nil, keyboardLayout: "en-us"))
    // The guest has none: the test's takes the place of its channel.
    try Files.remove(running.path("agent"))
    let agent = try FakeAgent(at: running.path("agent"), connections: 3, Self.answer)
    #expect(try await take("first", running, quiesces: true).isQuiesced)
    #expect(
      agent.asked == ["guest-ping", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"])
    #expect(!Files.exists(running.path("frozen")))

    // One that does not answer is not waited for.
    try Files.remove(running.path("agent"))
    #expect(try await !take("second", running, quiesces: true).isQuiesced)

    // As after a kill while they were frozen.
    try Files.replace(running.path("frozen"), with: [])
    let thawing = try FakeAgent(at: running.path("agent"), Self.answer)
    let next = try RunningSupervisor(after: running)
    _ = try await next.supervisor.survey()
    try await offPool { thawing.waitUntilAsked("guest-fsfreeze-thaw") }
    try await next.supervisor.discard(office)
  }

  @Test("that were deleted leave no long chain of images", .needs("qemu-io"))
  func tidying() async throws {
    let running = try RunningSupervisor()
    let images = running.settings.stateDirectory + "/images/office"
    try FileManager.default.createDirectory(atPath: images, withIntermediateDirectories: true)
    try Files.replace("\(images)/image.raw", with: [UInt8](repeating: 9, count: 4 << 20))
    func start(_ generation: UInt64) async throws {
      try await running.supervisor.start(
        LaunchRequest(
          desktop: office, generation: generation,
          image: Image(kind: .disk, path: "\(images)/image.raw"), memoryMiB: 16, cpus: 1,
          disk: generation == 1 ? .fresh : .keep, user: nil, keyboardLayout: "en-us"))
      try await running.supervisor.stop(office, graceSeconds: nil)
    }
    func layers() throws -> [String] {
      try files(running).filter { $0.hasPrefix("disk-") }
        .sorted { ($0.count, $0) < ($1.count, $1) }
    }
    try await start(1)
    for number in 1...12 {
      let top = try #require(try layers().last)
      // Each image has something of its own, and the last word on something older.
      let (status, output) = try running.directory.run(
        "qemu-io -c 'write -P \(number) \(number * 64)k 64k' -c 'write -P \(number) 0 64k' "
          + "\(state(running))/\(top)")
      #expect(status == 0, "\(output)")
      try await take("s\(number)", running)
    }
    #expect(try layers().count == 13)
    for number in 1...12 where number != 6 { try await delete("s\(number)", running) }
    try await start(2)
    #expect(try layers().count == 8)
    let top = try #require(try layers().last)
    let reads = (1...12).map { "-c 'read -P \($0) \($0 * 64)k 64k'" }.joined(separator: " ")
    let (_, output) = try running.directory.run(
      "qemu-io \(reads) -c 'read -P 12 0 64k' -c 'read -P 9 1M 1M' \(state(running))/\(top)")
    #expect(!output.contains("failed"), "\(output)")
    #expect(try await !revert("s6", running))
    let back = try #require(try layers().last)
    let (_, former) = try running.directory.run(
      "qemu-io -c 'read -P 6 0 64k' -c 'read -P 6 384k 64k' -c 'read -P 9 448k 64k' "
        + "\(state(running))/\(back)")
    #expect(!former.contains("failed"), "\(former)")
    try await running.supervisor.discard(office)
    #expect(try Files.read("\(images)/image.raw").allSatisfy { $0 == 9 })
  }

  @Test("go with the desktop, and are found by another carreld")
  func remains() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    try await take("first", running)
    // One that was not finished when carreld was killed.
    let stray = "\(state(running))/6e7a2b0c-0000-4000-8000-000000000000.snapshot"
    try Files.replace(stray, with: [1])
    let next = try RunningSupervisor(after: running)
    _ = try await next.supervisor.survey()
    #expect(try await names(next) == ["first"])
    try await take("second", next)
    try await delete("second", next)
    #expect(!Files.exists(stray))
    try await next.supervisor.discard(office)
    #expect(!Files.exists(state(running)))
    #expect(try await names(next).isEmpty)
  }

  @Test("images of a disk that cannot be read are not taken for unneeded", .needs("qemu-img"))
  func unreadable() async throws {
    let running = try RunningSupervisor()
    let image = try running.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "image.raw")
    try await running.supervisor.start(
      LaunchRequest(
        desktop: office, generation: 1, image: Image(kind: .disk, path: image), memoryMiB: 16,
        cpus: 1, disk: .fresh, user: nil, keyboardLayout: "en-us"))
    try await take("first", running)
    try await take("second", running)
    let header = try Files.read("\(state(running))/disk-1.qcow2")
    try Files.replace("\(state(running))/disk-1.qcow2", with: header.prefix(10))
    await #expect(throws: BrokerError.self) { try await delete("first", running) }
    await #expect(throws: BrokerError.self) { try await delete("second", running) }
    #expect(try files(running).filter { $0.hasPrefix("disk") }.count == 3)
  }

  @Test("cannot be taken of nothing, nor gone back to when something is missing")
  func refusals() async throws {
    let running = try RunningSupervisor()
    await #expect(throws: BrokerError.self) {
      try await running.supervisor.beginSnapshot(of: office, request("first", running))
    }
    try await running.supervisor.start(try running.request())
    try await take("first", running)
    let process = try running.process()
    await #expect(throws: LaunchError.self) { try await revert("none", running) }
    let memory = try #require(try files(running).first { $0.hasSuffix(".snapshot") })
    try FileManager.default.moveItem(
      atPath: "\(state(running))/\(memory)", toPath: "\(state(running))/away")
    let error = await #expect(throws: LaunchError.self) { try await revert("first", running) }
    #expect("\(try #require(error))".contains("is gone"))
    #expect(process.isRunning, "nothing was given up for it")
    let record = "\(state(running))/snapshot-first.json"
    try Files.replace(record, with: Array("{".utf8))
    let broken = await #expect(throws: BrokerError.self) { try await names(running) }
    #expect(broken?.context.contains("snapshot-first.json") == true)
  }

  @Test(
    "are not gone back to when they are damaged or of another machine, and nothing is given up",
    arguments: ["a page", "the version", "the processors", "the kernel"])
  func damaged(what: String) async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(
      try running.request(
        guest: SmallGuest.sleeping(with: [UInt8](repeating: 0x5A, count: 2 << 20))))
    try await take("first", running)
    let process = try running.process()
    let before = try files(running)
    let memory = state(running) + "/" + (try #require(before.first { $0.hasSuffix(".snapshot") }))
    switch what {
    case "a page":
      // Pages lie together; the header and devices' states take less.
      let stored = try FileDescriptor.open(memory).storedRanges().max { $0.count < $1.count }
      let pages = try #require(stored)
      try flip(memory, at: pages.lowerBound / 2 + pages.upperBound / 2)
    // Behind the name (SnapshotFormat).
    case "the version": try flip(memory, at: 8)
    case "the processors":
      let path = state(running) + "/snapshot-first.json"
      let text = String(decoding: try Files.read(path), as: UTF8.self)
      let changed = text.replacingOccurrences(of: "\"cpus\":1", with: "\"cpus\":2")
      try #require(changed != text)
      try Files.replace(path, with: Array(changed.utf8))
    default: try Files.remove(running.guest)
    }
    let error = await #expect(throws: LaunchError.self) { try await revert("first", running) }
    #expect("\(try #require(error))".contains("stays as it is"))
    #expect(process.isRunning)
    #expect(try files(running) == before)
  }

  private func flip(_ path: String, at offset: UInt64) throws {
    let file = try FileDescriptor.open(path, .writable)
    var byte: [UInt8] = [0]
    // SAFETY: the buffer is used only within the calls.
    try byte.withUnsafeMutableBytes { buffer in
      _ = try file.read(into: buffer, offset: offset)
      buffer[0] ^= 1
      try file.write(UnsafeRawBufferPointer(buffer), offset: offset)
    }
  }

  @Test("that the disk has no room for are told as failed, and leave nothing", .needsRoot)
  func full() async throws {
    let small = try SmallDisk(kibibytes: 1024)
    let running = try RunningSupervisor { $0.stateDirectory = small.path }
    try await running.supervisor.start(
      try running.request(
        guest: SmallGuest.sleeping(with: [UInt8](repeating: 0x5A, count: 2 << 20))))
    try await running.supervisor.beginSnapshot(of: office, request("first", running))
    var problem: String?
    while problem == nil {
      let found = try await running.supervisor.snapshots(of: office)
      guard case .failed(let text)? = found.first?.state else {
        if found.first?.state == .ready { break }
        try await Task.sleep(for: .milliseconds(10))
        continue
      }
      problem = text
    }
    #expect(problem?.contains("No space left") == true)
    #expect(try running.process().isRunning)
    #expect(try files(running).allSatisfy { !$0.contains("snapshot") })
    try await delete("first", running)
    #expect(try await names(running).isEmpty)
  }

  @Test(
    "survive a carreld that is killed on the way back",
    arguments: ["supervisor.revert.ended", "supervisor.revert.disk", "supervisor.revert.done"])
  func killed(at failpoint: String) async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    try await take("first", running)
    // A thread that never goes on is as good as a dead process.
    let reached = Guarded(false)
    let isOver = Guarded(false)
    let next = try RunningSupervisor(
      after: running,
      failpoints: Failpoints { name in
        guard name == failpoint else { return }
        reached.change { $0 = true }
        isOver.wait(until: { $0 }) { _ in }
      })
    _ = try await next.supervisor.survey()
    let doomed = Task.detached { _ = try? await revert("first", next) }
    try await offPool { reached.wait(until: { $0 }) { _ in } }
    let last = try RunningSupervisor(after: running)
    _ = try await last.supervisor.survey()
    #expect(try await revert("first", last))
    try await last.supervisor.start(
      try last.request(generation: 2, disk: .keep, resumes: true))
    #expect(try last.process().isRunning)
    #expect(try await names(last) == ["first"])
    try await last.supervisor.discard(office)
    isOver.change { $0 = true }
    await doomed.value
  }
}
