import Brokering
import Glibc
import LinuxSystem
import Supervisor
import TestSupport
import Testing

private let office = DesktopID(rawValue: "office-1")

@Suite("The supervisor and real VMMs", .needsKVM, .serialized)
struct SupervisorTests {
  @Test("a desktop starts, obeys, is photographed and stops; its end is reported once")
  func lifecycle() async throws {
    let running = try RunningSupervisor()
    let supervisor = running.supervisor
    let request = try running.request()
    try await supervisor.start(request)
    try await supervisor.start(request)
    let process = try running.process()
    _ = try UnixSocket.connect(to: supervisor.displayLink(of: office), kind: .packets)
    let line = String(
      decoding: try Files.read("/proc/\(process.identifier)/cmdline"), as: UTF8.self)
    #expect(!line.contains("alice"), "nothing about the user stands on a command line")
    #expect(try Files.read(running.path("user")) == Array("alice".utf8))
    #expect(try Files.read(running.path("keyboard")) == Array("en-us".utf8))

    try await supervisor.reset(office)
    try await supervisor.pressPowerButton(office)
    let picture = try await supervisor.screenshot(office)
    #expect(picture.starts(with: [0x89, 0x50, 0x4E, 0x47]))
    #expect(!Files.exists(running.path("screenshot.png")))

    try await supervisor.stop(office, graceSeconds: nil)
    #expect(!process.isRunning)
    try await supervisor.stop(office, graceSeconds: nil)
    #expect(
      await running.nextExit() == DesktopExit(desktop: office, generation: 1, reason: .stopped))
    let gone = await #expect(throws: LaunchError.self) {
      try await supervisor.screenshot(office)
    }
    #expect(gone?.kind == .notRunning)

    try await supervisor.start(try running.request(generation: 2))
    try await supervisor.discard(office)
    #expect(await running.nextExit()?.generation == 2)
    #expect(!Files.exists(running.settings.runtimeDirectory + "/desktops/office-1"))
    #expect(!Files.exists(running.settings.stateDirectory + "/desktops/office-1"))
    try await supervisor.discard(office)
  }

  @Test("a spare is told its user while it runs; a new start and a discard forget the name")
  func identity() async throws {
    let running = try RunningSupervisor()
    let supervisor = running.supervisor
    let alice = DesktopIdentity(user: UserName(rawValue: "alice"), keyboardLayout: "de")
    let early = await #expect(throws: LaunchError.self) {
      try await supervisor.identify(office, as: alice)
    }
    #expect(early?.kind == .notRunning)
    #expect(!Files.exists(running.path("user")))

    try await supervisor.start(try running.request(user: nil))
    #expect(try Files.read(running.path("user")).isEmpty)
    let line = String(
      decoding: try Files.read("/proc/\(running.process().identifier)/cmdline"), as: UTF8.self)
    #expect(line.contains("name=opt/carrel/user,file=\(running.path("user"))"))
    try await supervisor.identify(office, as: alice)
    try await supervisor.identify(office, as: alice)
    #expect(try Files.read(running.path("user")) == Array("alice".utf8))
    #expect(try Files.read(running.path("keyboard")) == Array("de".utf8))

    try await supervisor.start(try running.request(generation: 2, user: nil))
    #expect(try Files.read(running.path("user")).isEmpty)
    try await supervisor.identify(office, as: alice)
    try await supervisor.discard(office)
    #expect(!Files.exists(running.path("user")))
  }

  @Test("a guest has come up when it leaves the processors alone; one that never does, in time")
  func comingUp() async throws {
    let running = try RunningSupervisor { $0.comeUpLimit = .seconds(4) }
    func comeUp(_ generation: UInt64, _ guest: [UInt8]) async throws -> Duration {
      try await running.supervisor.start(
        try running.request(generation: generation, guest: guest, user: nil))
      let begin = ContinuousClock.now
      #expect(await running.supervisor.comeUp(office) == .booted)
      return ContinuousClock.now - begin
    }
    // jmp $
    let busy = try await comeUp(1, SmallGuest.elf(code: [0xEB, 0xFE]))
    #expect(busy >= .seconds(4))
    let resting = try await comeUp(2, SmallGuest.sleeping)
    #expect(resting < .seconds(4), "\(resting)")
    try await running.supervisor.discard(office)
    #expect(await running.supervisor.comeUp(office) == .booted, "there is none to wait for")
  }

  @Test("a guest that ignores the power button is stopped after its time of grace")
  func grace() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    let process = try running.process()
    try await running.supervisor.stop(office, graceSeconds: 1)
    #expect(!process.isRunning)
    #expect(await running.nextExit()?.reason == .stopped)
  }

  @Test("a VMM that does not answer is killed")
  func stuck() async throws {
    let running = try RunningSupervisor { $0.quitLimit = .milliseconds(100) }
    try await running.supervisor.start(try running.request())
    let process = try running.process()
    try process.send(.stop)
    try await running.supervisor.discard(office)
    #expect(!process.isRunning)
  }

  @Test("kill -9 of a VMM is noticed and told apart")
  func killed() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request(generation: 7))
    try running.process().send(.kill)
    #expect(
      await running.nextExit()
        == DesktopExit(
          desktop: office, generation: 7, reason: .crashed("the VMM was killed by signal 9")))
  }

  @Test("a guest that KVM cannot go on with is reported with the VMM's own words")
  func crash() async throws {
    let running = try RunningSupervisor()
    // The guest may crash before or after the display accepts.
    do {
      try await running.supervisor.start(try running.request(guest: SmallGuest.crashing))
      guard case .crashed(let text)? = await running.nextExit()?.reason else {
        Issue.record("no crash was reported")
        return
      }
      #expect(text.contains("emulate"))
    } catch {
      #expect("\(error)".contains("emulate"))
    }
  }

  @Test("what cannot start says why and leaves nothing running")
  func badImages() async throws {
    let running = try RunningSupervisor()
    var request = try running.request()
    request = LaunchRequest(
      desktop: office, generation: 1, image: Image(kind: .iso, path: "/nowhere.iso"),
      memoryMiB: 16, cpus: 1, disk: .fresh, user: nil, keyboardLayout: "en-us")
    let missing = await #expect(throws: LaunchError.self) {
      try await running.supervisor.start(request)
    }
    #expect(missing?.kind == .image)
    #expect(missing?.description.contains("/nowhere.iso") == true)

    let notELF = await #expect(throws: LaunchError.self) {
      try await running.supervisor.start(
        try running.request(guest: Array("not an ELF".utf8)))
    }
    #expect(notELF?.kind == .startFailed)
    #expect(notELF?.description.contains("guest.elf") == true, "\(notELF as Any)")
    try await running.supervisor.start(try running.request(generation: 2))
    try await running.supervisor.discard(office)
  }

  @Test("a missing program is named")
  func missingProgram() async throws {
    let running = try RunningSupervisor { $0.vmm = "/nowhere/carrel-vmm" }
    let error = await #expect(throws: LaunchError.self) {
      try await running.supervisor.start(try running.request())
    }
    #expect(error?.description.contains("/nowhere/carrel-vmm") == true)
  }

  @Test("a discard overtakes a start, which gives up")
  func overtaken() async throws {
    let reached = Guarded(false)
    let isUnwanted = Guarded(false)
    let mayGoOn = Guarded(false)
    let running = try RunningSupervisor(
      failpoints: Failpoints { name in
        if name == "supervisor.end" { isUnwanted.change { $0 = true } }
        guard name == "supervisor.prepared" else { return }
        reached.change { $0 = true }
        mayGoOn.wait(until: { $0 }) { _ in }
      })
    let request = try running.request()
    let supervisor = running.supervisor
    let start = Task.detached { try await supervisor.start(request) }
    try await offPool { reached.wait(until: { $0 }) { _ in } }
    let discard = Task.detached { try await supervisor.discard(office) }
    try await offPool { isUnwanted.wait(until: { $0 }) { _ in } }
    mayGoOn.change { $0 = true }
    await #expect(throws: LaunchError.self) { try await start.value }
    try await discard.value
    #expect(!Files.exists(running.settings.runtimeDirectory + "/desktops/office-1"))
  }
}

/// Runs something that blocks away from the task pool.
func offPool<Value: Sendable>(
  _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    do {
      _ = try Thread(name: "test") { continuation.resume(with: Result(catching: body)) }
    } catch {
      continuation.resume(throwing: error)
    }
  }
}
