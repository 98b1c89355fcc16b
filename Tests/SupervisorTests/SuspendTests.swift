import Brokering
import Foundation
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("A desktop that is suspended", .needsKVM, .serialized)
struct SuspendTests {
  private let office = DesktopID(rawValue: "office-1")

  private func commandLine(_ running: RunningSupervisor) throws -> String {
    String(
      decoding: try Files.read("/proc/\(running.process().identifier)/cmdline"), as: UTF8.self)
  }

  private func file(_ running: RunningSupervisor) -> String {
    running.settings.stateDirectory + "/desktops/office-1/suspended"
  }

  @Test("has no process, and goes on from its file, which is gone then")
  func roundTrip() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    let process = try running.process()
    try await running.supervisor.suspend(office)
    #expect(!process.isRunning)
    #expect(
      await running.nextExit() == DesktopExit(desktop: office, generation: 1, reason: .suspended))
    try await running.supervisor.suspend(office)
    let attributes = try FileManager.default.attributesOfItem(atPath: file(running))
    #expect(attributes[.posixPermissions] as? Int == 0o600)

    // Another carreld finds it suspended, also when its VMM was killed once the file was whole.
    try Files.remove(running.path("exit.json"))
    let next = try RunningSupervisor(after: running)
    #expect(
      try await next.supervisor.survey() == [
        Survivor(desktop: office, generation: 1, state: .ended(.suspended))
      ])
    try await next.supervisor.start(
      try next.request(generation: 2, disk: .keep, resumes: true))
    #expect(try commandLine(next).contains("--restore\0\(file(next)),remove=on"))
    // Displays are accepted a moment before the guest runs.
    let deadline = ContinuousClock.now + .seconds(20)
    while Files.exists(file(next)), ContinuousClock.now < deadline { await Task.yield() }
    #expect(!Files.exists(file(next)))
    try await next.supervisor.stop(office, graceSeconds: nil)
  }

  @Test("forgets what was saved when it starts anew, and when it is discarded")
  func forgets() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    try await running.supervisor.suspend(office)
    #expect(Files.exists(file(running)))
    try await running.supervisor.start(try running.request(generation: 2, disk: .keep))
    #expect(!Files.exists(file(running)))
    #expect(try !commandLine(running).contains("--restore"))
    try await running.supervisor.suspend(office)
    #expect(Files.exists(file(running)))
    try await running.supervisor.discard(office)
    #expect(!Files.exists(file(running)))
    // Nothing is left to go on from: it starts anew.
    try await running.supervisor.start(
      try running.request(generation: 3, disk: .keep, resumes: true))
    #expect(try !commandLine(running).contains("--restore"))
    try await running.supervisor.stop(office, graceSeconds: nil)
  }

  @Test("runs on when there is no room for its file", .needsRoot)
  func noRoom() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    let process = try running.process()
    let place = running.settings.stateDirectory + "/desktops/office-1"
    try #require(mount("tmpfs", place, "tmpfs", 0, "size=16k") == 0)
    let error = await #expect(throws: LaunchError.self) {
      try await running.supervisor.suspend(office)
    }
    #expect(error?.description.contains("runs on") == true, "\(String(describing: error))")
    #expect(error?.description.contains("no room") == true, "\(String(describing: error))")
    #expect(process.isRunning)
    #expect(try FileManager.default.contentsOfDirectory(atPath: place).isEmpty)
    umount(place)
    try await running.supervisor.suspend(office)
    #expect(!process.isRunning)
  }

  @Test("does not start from a file that was altered, and says how to give it up")
  func damaged() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    try await running.supervisor.suspend(office)
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: file(running)))
    try handle.seek(toOffset: 20)
    try handle.write(contentsOf: Data([0xFF]))
    try handle.close()
    let error = await #expect(throws: LaunchError.self) {
      try await running.supervisor.start(
        try running.request(generation: 2, disk: .keep, resumes: true))
    }
    let text = error?.description ?? ""
    #expect(
      text.contains("did not wake") && text.contains("carrel desktop stop office-1"), "\(text)")
    #expect(text.contains("is damaged"), "\(text)")
    #expect(Files.exists(file(running)))
  }
}
