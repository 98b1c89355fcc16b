import Brokering
import LinuxSystem
import Supervisor
import TestSupport
import Testing

private let office = DesktopID(rawValue: "office-1")

@Suite("What a supervisor leaves, and finds", .needsKVM, .serialized)
struct CrashTests {
  @Test("a running desktop is found again, with its generation, and can be ended")
  func adoption() async throws {
    let first = try RunningSupervisor()
    try await first.supervisor.start(try first.request(generation: 5))
    let second = try RunningSupervisor(after: first)
    #expect(
      try await second.supervisor.survey() == [
        Survivor(desktop: office, generation: 5, state: .running)
      ])
    _ = try await second.supervisor.screenshot(office)
    try await second.supervisor.stop(office, graceSeconds: nil)
    #expect(
      await second.nextExit() == DesktopExit(desktop: office, generation: 5, reason: .stopped))
  }

  @Test("an adopted desktop that is killed is noticed")
  func adoptedAndKilled() async throws {
    let first = try RunningSupervisor()
    try await first.supervisor.start(try first.request())
    let second = try RunningSupervisor(after: first)
    _ = try await second.supervisor.survey()
    try first.process().send(.kill)
    #expect(
      await second.nextExit()?.reason == .crashed("the VMM ended and left no record"))
  }

  @Test("one that ended meanwhile is reported with its reason")
  func endedMeanwhile() async throws {
    let first = try RunningSupervisor()
    try await first.supervisor.start(try first.request(generation: 3))
    try await first.supervisor.stop(office, graceSeconds: nil)
    let second = try RunningSupervisor(after: first)
    #expect(
      try await second.supervisor.survey() == [
        Survivor(desktop: office, generation: 3, state: .ended(.stopped))
      ])
  }

  @Test("a recycled process number is not mistaken for the VMM")
  func recycledNumber() async throws {
    let running = try RunningSupervisor()
    let directory = running.settings.runtimeDirectory + "/desktops/office-1"
    try Files.makeDirectory(running.settings.runtimeDirectory + "/desktops")
    try Files.makeDirectory(directory)
    // This very process, but started at another time.
    let pid = ProcessHandle.current.identifier
    try Files.replace(directory + "/vmm.json", with: Array(#"{"pid":\#(pid),"startTime":1}"#.utf8))
    #expect(
      try await running.supervisor.survey() == [
        Survivor(desktop: office, generation: 0, state: .ended(nil))
      ])
  }

  @Test(
    "a supervisor that dies at any step of a start leaves what the next one can use",
    arguments: [
      ("supervisor.created", false), ("supervisor.recorded", false),
      ("supervisor.prepared", false), ("supervisor.spawn.before", false),
      ("supervisor.spawn.after", true), ("supervisor.ready", true),
    ])
  func crash(point: String, survives: Bool) async throws {
    // A thread that never goes on is as good as a dead process.
    let reached = Guarded(false)
    let isOver = Guarded(false)
    let first = try RunningSupervisor(
      failpoints: Failpoints { name in
        guard name == point else { return }
        reached.change { $0 = true }
        isOver.wait(until: { $0 }) { _ in }
      })
    let request = try first.request(generation: 9)
    let start = Task.detached { try? await first.supervisor.start(request) }
    try await offPool { reached.wait(until: { $0 }) { _ in } }

    let second = try RunningSupervisor(after: first)
    let survivors = try await second.supervisor.survey()
    if survives {
      #expect(survivors == [Survivor(desktop: office, generation: 9, state: .running)])
    } else {
      #expect(survivors.allSatisfy { $0.state == .ended(nil) })
      try await second.supervisor.start(request)
    }
    _ = try await second.supervisor.screenshot(office)
    try await second.supervisor.discard(office)
    #expect(await second.nextExit()?.generation == 9)
    isOver.change { $0 = true }
    await start.value
  }
}
