import Brokering
import Glibc
import LinuxSystem
import Supervisor
import TestSupport
import Testing

private let office = DesktopID(rawValue: "office-1")

/// The VMM's channel is real. Agents that answer take its place at the socket, for these
/// guests have none.
@Suite("The guest agents of desktops", .needsKVM, .serialized)
struct AgentTests {
  /// A desktop that runs, and where its agent's channel was.
  private func running() async throws -> RunningSupervisor {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    return running
  }

  @Test("every desktop has a channel that is its owner's alone, also for the next carreld")
  func channel() async throws {
    let limit = Duration.milliseconds(100)
    let first = try RunningSupervisor { $0.agentPresenceLimit = limit }
    let early = await #expect(throws: LaunchError.self) {
      try await first.supervisor.ask(office, .ping)
    }
    #expect(early?.kind == .notRunning)
    try await first.supervisor.start(try first.request())
    var status = stat()
    // SAFETY: lstat fills the structure given or fails.
    #expect(lstat(first.path("agent"), &status) == 0 && status.st_mode & 0o777 == 0o600)
    let silent = await #expect(throws: LaunchError.self) {
      try await first.supervisor.ask(office, .ping)
    }
    #expect(silent?.kind == .noAgent)
    #expect(silent?.context.contains("is qemu-guest-agent installed and running in it?") == true)

    let second = try RunningSupervisor(after: first) { $0.agentPresenceLimit = limit }
    #expect(try await second.supervisor.survey().map(\.state) == [.running])
    let again = await #expect(throws: LaunchError.self) {
      try await second.supervisor.ask(office, .ping)
    }
    #expect(again?.context == silent?.context)

    // As desktops are that an earlier carreld started.
    try Files.remove(second.path("agent"))
    let old = await #expect(throws: LaunchError.self) {
      try await second.supervisor.ask(office, .ping)
    }
    #expect(old?.kind == .noAgent)
    #expect(old?.context.contains("'carrel desktop stop office-1', then start it again") == true)
    try await second.supervisor.discard(office)
    #expect(!Files.exists(second.path("agent")))
  }

  @Test("Debian's agent is asked for everything that does nothing to this host", .needsGuestAgent)
  func real() async throws {
    let running = try await running()
    let supervisor = running.supervisor
    try Files.remove(running.path("agent"))
    let agent = try RealAgent(at: running.path("agent"))
    #expect(try await supervisor.ask(office, .ping) == .done)
    guard case .info(let info) = try await supervisor.ask(office, .info) else {
      Issue.record("no info")
      return
    }
    #expect(info.enabled.contains("guest-exec"))
    #expect(Set(info.disabled).isSuperset(of: ["guest-shutdown", "guest-set-user-password"]))
    guard case .interfaces(let interfaces) = try await supervisor.ask(office, .networkInterfaces)
    else {
      Issue.record("no interfaces")
      return
    }
    #expect(interfaces.first { $0.name == "lo" }?.addresses.contains("127.0.0.1/8") == true)
    #expect(try await supervisor.ask(office, .freezeStatus) == .frozen(false))
    let refused = await #expect(throws: LaunchError.self) {
      try await supervisor.ask(office, .shutdown(.powerdown))
    }
    #expect(refused?.kind == .agentRefused)
    #expect(refused?.description.contains("has been disabled") == true)
    #expect(agent.path == running.path("agent"))
    try await supervisor.discard(office)
  }

  @Test("programs run in the guest with input, and tell their status and output", .needsGuestAgent)
  func programs() async throws {
    let running = try await running()
    let supervisor = running.supervisor
    try Files.remove(running.path("agent"))
    let agent = try RealAgent(at: running.path("agent"))
    func run(_ command: [String], input: [UInt8]? = nil, seconds: Int = 60) async throws
      -> AgentExecution?
    {
      let program = AgentProgram(command: command, input: input)
      let answer = try await supervisor.ask(office, .execute(program, seconds: seconds))
      guard case .execution(let execution) = answer else { return nil }
      return execution
    }
    let cat = try await run(["cat"], input: [0xFF, 0, 0x0A])
    #expect(cat?.output == [0xFF, 0, 0x0A])
    #expect(cat?.status == 0)
    let failing = try await run(["sh", "-c", "echo no >&2; exit 3"])
    #expect(failing?.status == 3)
    #expect(failing?.errors == Array("no\n".utf8))
    let killed = try await run(["sh", "-c", "kill -9 $$"])
    #expect(killed?.signal == 9)
    let missing = await #expect(throws: LaunchError.self) { _ = try await run(["/nowhere/at/all"]) }
    #expect(missing?.kind == .agentRefused)
    #expect(missing?.description.contains("/nowhere/at/all") == true)

    let gate = agent.directory.path("gate")
    try #require(try agent.directory.run("mkfifo gate").status == 0)
    let waiting = try #require(try await run(["cat", gate], seconds: 0))
    #expect(!waiting.hasEnded)
    #expect(try agent.directory.run("echo opened > gate").status == 0)
    while true {
      let answer = try await supervisor.ask(office, .executionStatus(process: waiting.process))
      guard case .execution(let execution) = answer, !execution.hasEnded else {
        guard case .execution(let execution) = answer else { break }
        #expect(execution.output == Array("opened\n".utf8))
        break
      }
    }
    let endless = await #expect(throws: LaunchError.self) {
      _ = try await run(["head", "-c", "6000000", "/dev/zero"])
    }
    #expect(endless?.kind == .noAgent)
    #expect(endless?.context.contains("more than 4096 KiB in one answer") == true)
    try await supervisor.discard(office)
  }

  @Test("passwords, freezes and shutdowns arrive")
  func changes() async throws {
    let running = try await running()
    try Files.remove(running.path("agent"))
    let agent = try FakeAgent(at: running.path("agent"), connections: 4) { peer in
      try peer.synchronise()
      while let command = try peer.command() {
        let isCounted = command["execute"]?.text?.contains("fsfreeze") == true
        try peer.say(isCounted ? "{\"return\": 2}\n" : "{\"return\": {}}\n")
      }
    }
    let supervisor = running.supervisor
    let password = AgentRequest.setPassword(user: "root", password: [1])
    #expect(try await supervisor.ask(office, password) == .done)
    #expect(try await supervisor.ask(office, .freeze) == .fileSystems(2))
    #expect(try await supervisor.ask(office, .thaw) == .fileSystems(2))
    #expect(try await supervisor.ask(office, .shutdown(.halt)) == .done)
    #expect(
      agent.asked.prefix(4) == [
        "guest-set-user-password", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw",
        "guest-shutdown",
      ])
    try await supervisor.discard(office)
  }

  @Test("a graceful stop tells the agent, and waits for none that is not there")
  func stop() async throws {
    let running = try await running()
    try Files.remove(running.path("agent"))
    let agent = try FakeAgent(at: running.path("agent")) { peer in
      try peer.synchronise()
      while try peer.command() != nil {}
    }
    try await running.supervisor.stop(office, graceSeconds: 1)
    try await offPool { agent.waitUntilAsked("guest-shutdown") }
    #expect(await running.nextExit()?.reason == .stopped)
  }

  @Test("an agent that answers something else than it was asked is hostile or broken")
  func otherAnswer() async throws {
    let running = try await running()
    try Files.remove(running.path("agent"))
    let agent = try FakeAgent(at: running.path("agent")) { peer in
      try peer.synchronise()
      _ = try peer.command()
      try peer.say("{\"return\": {\"version\": 7}}\n")
    }
    let error = await #expect(throws: LaunchError.self) {
      try await running.supervisor.ask(office, .info)
    }
    #expect(error?.kind == .noAgent)
    #expect(error?.context.contains("something else than was asked for") == true)
    #expect(agent.asked == ["guest-info"])
    try await running.supervisor.discard(office)
  }
}
