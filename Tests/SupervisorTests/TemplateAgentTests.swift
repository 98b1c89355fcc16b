import Brokering
import CNativeCode
import LinuxSystem
import Supervisor
import TestSupport
import Testing

/// The guest's agent is real machine code on the channel (`AgentGuest.S`).
@Suite("Templates of guests with an agent", .needsKVM, .serialized)
struct TemplateAgentTests {
  private let pool = PoolName(rawValue: "office")

  private func request(
    _ number: UInt64, in running: RunningSupervisor, network: Hardware.Network = .none
  ) throws -> LaunchRequest {
    let path = running.directory.path("guest.elf")
    if !Files.exists(path) {
      var code = [UInt8](repeating: 0, count: 8192)
      code.removeLast(code.count - cguest_copy(CGUEST_AGENT, &code, code.count))
      try Files.replace(path, with: SmallGuest.elf(code: code))
    }
    return LaunchRequest(
      desktop: DesktopID(pool: pool, number: number), generation: 1,
      image: Image(kind: .kernel, path: path), memoryMiB: 16, cpus: 1,
      hardware: Hardware(network: network), disk: .fresh, user: nil, keyboardLayout: "en-us")
  }

  private func make(
    _ sign: TemplateReadiness.Sign, _ running: RunningSupervisor, limitSeconds: Int = 60,
    network: Hardware.Network = .none
  ) async throws -> PoolTemplate {
    try await running.supervisor.makeTemplate(
      TemplatePlan(
        pool: pool, machine: TemplateMachine(of: try request(1, in: running, network: network)),
        readiness: try TemplateReadiness(
          sign: sign, settleSeconds: 1, limitSeconds: limitSeconds)))
    return try await running.settledTemplate()
  }

  @Test(
    "are taken when it answers, or found the marker",
    arguments: [
      (.automatic, "its guest agent answered"), (.agent, "its guest agent answered"),
      (.marker("/there"), "its guest agent found /there"),
      // It is not there when it is first looked for.
      (.marker("/later/on"), "its guest agent found /later/on"),
    ] as [(TemplateReadiness.Sign, String)])
  func ready(sign: TemplateReadiness.Sign, seen: String) async throws {
    let running = try RunningSupervisor()
    let template = try await make(sign, running)
    #expect(template.state == .ready && template.sign == seen, "\(template)")
    // Whose agent is there as well.
    let desktop = try request(1, in: running)
    try await running.supervisor.start(desktop)
    #expect(await running.supervisor.comeUp(desktop.desktop) == .cloned)
    #expect(try await running.supervisor.ask(desktop.desktop, .ping) == .done)
    try await running.supervisor.discard(desktop.desktop)
  }

  @Test(
    "are told as failed, with what was missing, when their time is over",
    arguments: [
      (.agent, false, "no guest agent answered"), (.marker("/there"), false, "no guest agent"),
      (.marker("/nowhere"), true, "its guest agent did not find /nowhere"),
    ] as [(TemplateReadiness.Sign, Bool, String)])
  func late(sign: TemplateReadiness.Sign, hasAgent: Bool, missing: String) async throws {
    let running = try RunningSupervisor()
    if !hasAgent { try running.directory.write(SmallGuest.sleeping, to: "guest.elf") }
    let template = try await make(sign, running, limitSeconds: 3)
    guard case .failed(let problem) = template.state else {
      Issue.record("it did not fail: \(template)")
      return
    }
    #expect(problem.contains("was not ready after 3 s: \(missing)"), "\(problem)")
    #expect(!Files.exists(running.settings.stateDirectory + "/desktops/office-0"))
  }

  @Test(
    "have clones that took their host name before their cable was plugged in", .needs("passt"))
  func introduced() async throws {
    let running = try RunningSupervisor()
    let template = try await make(.agent, running, network: .user(.off))
    #expect(template.state == .ready, "\(template)")
    for number in 1...3 {
      let desktop = try request(UInt64(number), in: running, network: .user(.off))
      try await running.supervisor.start(desktop)
      #expect(await running.supervisor.comeUp(desktop.desktop) == .cloned)
      var identity: [Substring] = []
      // Its name, the cable when it took that, and the cable now.
      while identity.last?.last != "1" {
        guard case .info(let info) = try await running.supervisor.ask(desktop.desktop, .info)
        else { break }
        identity = info.version.split(separator: " ")
      }
      #expect(identity == ["office-\(number)", "01"])
    }
    for number in 1...3 {
      try await running.supervisor.discard(DesktopID(pool: pool, number: UInt64(number)))
    }
  }
}
