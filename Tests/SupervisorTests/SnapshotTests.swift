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

  private func request(_ name: String) -> SnapshotRequest {
    let pool = Pool(
      name: PoolName(rawValue: "office"), kind: .dedicated,
      image: Image(kind: .kernel, path: "/guest"), memoryMiB: 16, size: 1, spares: 0,
      policies: PoolPolicies(), created: Timestamp(milliseconds: 0))
    return SnapshotRequest(
      name: SnapshotName(rawValue: name), shape: DesktopShape(of: pool), quiesces: false)
  }

  /// Takes one, and waits until it is there.
  @discardableResult
  private func take(_ name: String, _ running: RunningSupervisor) async throws -> DesktopSnapshot {
    try await running.supervisor.beginSnapshot(of: office, request(name))
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
    let first = try await take("first", running)
    #expect(first.hasMemory && first.parent == nil && first.isCurrent && !first.isDifferential)
    #expect(first.memoryBytes > 0 && first.pauseMicroseconds ?? 0 > 0)
    let second = try await take("second", running)
    #expect(second.parent?.rawValue == "first" && second.isDifferential)
    let process = try running.process()
    await #expect(throws: BrokerError.self) {
      try await running.supervisor.beginSnapshot(of: office, request("second"))
    }
    #expect(process.isRunning)

    #expect(try await revert("first", running))
    #expect(!process.isRunning)
    try await running.supervisor.start(
      try running.request(generation: 2, disk: .keep, resumes: true))
    let third = try await take("third", running)
    #expect(third.parent?.rawValue == "first")
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

  @Test("cannot be taken of nothing, nor gone back to when something is missing")
  func refusals() async throws {
    let running = try RunningSupervisor()
    await #expect(throws: BrokerError.self) {
      try await running.supervisor.beginSnapshot(of: office, request("first"))
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

  @Test("that the disk has no room for are told as failed, and leave nothing", .needsRoot)
  func full() async throws {
    let small = try SmallDisk(kibibytes: 1024)
    let running = try RunningSupervisor { $0.stateDirectory = small.path }
    try await running.supervisor.start(
      try running.request(
        guest: SmallGuest.sleeping(with: [UInt8](repeating: 0x5A, count: 2 << 20))))
    try await running.supervisor.beginSnapshot(of: office, request("first"))
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
