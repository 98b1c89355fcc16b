import Brokering
import Glibc
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("Processes that cannot be watched", .serialized)
struct UnwatchedTests {
  /// Every process that has that name, ended ones that nobody reaped too.
  private func processes(named name: String) throws -> [String] {
    let directory = try TemporaryDirectory()
    let (_, output) = try directory.run("grep -l '(\(name))' /proc/[0-9]*/stat 2>/dev/null")
    return output.split(separator: "\n").map(String.init)
  }

  @Test("a desktop's start fails and leaves nothing, not even a zombie", .timeLimit(.minutes(4)))
  func desktop() async throws {
    let directory = try TemporaryDirectory()
    let program = directory.path("unwatched-vmm")
    #expect(symlink(Programs.built("carrel-vmm"), program) == 0)
    let running = try RunningSupervisor { $0.vmm = program }
    running.supervisor.watcher.stop()
    let request = try running.request()
    let error = await #expect(throws: LaunchError.self) {
      try await running.supervisor.start(request)
    }
    #expect(error?.description.contains("watch process") == true)
    #expect(try processes(named: "unwatched-vmm") == [])
    // And another attempt is not held up by this one.
    await #expect(throws: LaunchError.self) {
      try await running.supervisor.start(try running.request(generation: 2))
    }
    try await running.supervisor.discard(DesktopID(rawValue: "office-1"))
  }

  @Test("a display process is ended and reaped", .timeLimit(.minutes(4)))
  func display() async throws {
    let directory = try TemporaryDirectory()
    let program = directory.path("unwatched-disp")
    #expect(symlink(Programs.built("carrel-display"), program) == 0)
    let running = try RunningSupervisor { $0.display = program }
    running.supervisor.watcher.stop()
    await #expect(throws: SystemError.self) {
      try await running.supervisor.spawnDisplay(for: ConnectionID(1))
    }
    #expect(try processes(named: "unwatched-disp") == [])
  }
}
