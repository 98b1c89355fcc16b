import Brokering
import LinuxSystem
import QMP

// MARK: - Guest agents

extension Supervisor {
  /// Between two questions whether a program has ended: the agent does not tell by itself.
  private static let shortestPause = Duration.milliseconds(20)
  private static let longestPause = Duration.milliseconds(500)

  public func ask(
    _ desktop: DesktopID, _ request: AgentRequest
  ) async throws(LaunchError) -> AgentAnswer {
    switch request {
    case .ping:
      _ = try await agent(desktop, .ping)
      return .done
    case .shutdown(let mode):
      _ = try await agent(desktop, .shutdown(GuestAgentCommand.ShutdownMode(mode)))
      return .done
    case .setPassword(let user, let password):
      _ = try await agent(desktop, .setPassword(user: user, password: password))
      return .done
    case .info:
      return .info(AgentInfo(try await agent(desktop, .info, GuestAgentAnswers.info)))
    case .networkInterfaces:
      let found = try await agent(desktop, .networkInterfaces, GuestAgentAnswers.interfaces)
      return .interfaces(found.map(AgentInterface.init))
    case .freeze:
      return .fileSystems(try await agent(desktop, .freeze, GuestAgentAnswers.count))
    case .thaw:
      return .fileSystems(try await agent(desktop, .thaw, GuestAgentAnswers.count))
    case .freezeStatus:
      return .frozen(try await agent(desktop, .freezeStatus, GuestAgentAnswers.isFrozen))
    case .execute(let program, let seconds):
      return .execution(try await execute(program, in: desktop, seconds: seconds))
    case .executionStatus(let process):
      return .execution(try await execution(process, in: desktop))
    }
  }

  private func execute(
    _ program: AgentProgram, in desktop: DesktopID, seconds: Int
  ) async throws(LaunchError) -> AgentExecution {
    let process = try await agent(
      desktop, .execute(GuestAgentCommand.Program(program)), GuestAgentAnswers.process)
    let deadline = ContinuousClock.now + .seconds(seconds)
    var pause = Self.shortestPause
    while true {
      let execution = try await execution(process, in: desktop)
      guard !execution.hasEnded, ContinuousClock.now < deadline, !Task.isCancelled else {
        return execution
      }
      try? await Task.sleep(for: pause)
      pause = min(pause * 2, Self.longestPause)
    }
  }

  private func execution(
    _ process: Int, in desktop: DesktopID
  ) async throws(LaunchError) -> AgentExecution {
    AgentExecution(
      process,
      try await agent(
        desktop, .executionStatus(process: process), GuestAgentAnswers.execution))
  }

  // MARK: One question

  private func agent<Answer: Sendable>(
    _ desktop: DesktopID, _ command: GuestAgentCommand, _ read: (JSON) -> Answer?
  ) async throws(LaunchError) -> Answer {
    let json = try await agent(desktop, command)
    guard let answer = read(json) else {
      throw explain(.protocolViolation("something else than was asked for"), command, desktop)
    }
    return answer
  }

  private func agent(
    _ desktop: DesktopID, _ command: GuestAgentCommand
  ) async throws(LaunchError) -> JSON {
    try checkRunning(desktop)
    let path = directory(of: desktop).agent
    let limits = AgentLink.Limits(
      presence: settings.agentPresenceLimit, answer: settings.agentAnswerLimit)
    do {
      return try await offPool { try AgentLink(to: path).ask(command, within: limits) }
    } catch let problem as AgentLink.Problem {
      throw explain(problem, command, desktop)
    } catch {
      throw explain(.broken(error), command, desktop)
    }
  }

  /// Asks for a shutdown beside the power button, which a guest may ignore. Returns when it
  /// is under way to this VMM, and to no later one; what becomes of it is not waited for.
  func askToShutDown(_ desktop: DesktopID) async {
    let path = directory(of: desktop).agent
    let limits = AgentLink.Limits(
      presence: settings.agentPresenceLimit, answer: settings.agentAnswerLimit)
    guard let link = try? await offPool({ try AgentLink(to: path) }) else { return }
    Task { try? await offPool { _ = try link.ask(.shutdown(.powerdown), within: limits) } }
  }

  private nonisolated func explain(
    _ problem: AgentLink.Problem, _ command: GuestAgentCommand, _ desktop: DesktopID
  ) -> LaunchError {
    let agent = "the guest agent of desktop '\(desktop)'"
    switch problem {
    case .noChannel:
      return LaunchError(
        .noAgent,
        "desktop '\(desktop)' has no channel for a guest agent, for an earlier carreld started it: "
          + "'carrel desktop stop \(desktop)', then start it again")
    case .silent:
      return LaunchError(
        .noAgent,
        "\(agent) does not answer: is qemu-guest-agent installed and running in it? "
          + "'carrel desktop screenshot \(desktop)' shows how far it has come")
    case .slow:
      return LaunchError(
        .noAgent,
        "\(agent) did not answer \(command.name) in \(settings.agentAnswerLimit): it may still do "
          + "it; see with 'carrel desktop agent ping \(desktop)'")
    case .broken(let error):
      return LaunchError(
        .noAgent,
        "\(agent) could not be asked to the end: see with 'carrel desktop show \(desktop)' whether "
          + "it runs", cause: error)
    case .refused(let error):
      return LaunchError(.agentRefused, "\(agent) refused \(command.name)", cause: error)
    case .protocolViolation(let text):
      return LaunchError(
        .noAgent,
        "what answers as \(agent) is none, or broken (\(text)): look at qemu-guest-agent in it; "
          + "large output of programs belongs in a file there")
    }
  }
}

extension GuestAgentCommand.ShutdownMode {
  fileprivate init(_ mode: AgentRequest.Shutdown) {
    self =
      switch mode {
      case .powerdown: .powerdown
      case .reboot: .reboot
      case .halt: .halt
      }
  }
}

extension GuestAgentCommand.Program {
  fileprivate init(_ program: AgentProgram) {
    self.init(
      path: program.command.first ?? "", arguments: Array(program.command.dropFirst()),
      input: program.input)
  }
}

extension AgentInfo {
  fileprivate init(_ info: GuestAgentAnswers.Info) {
    self.init(
      version: info.version,
      enabled: info.commands.filter(\.isEnabled).map(\.name).sorted(),
      disabled: info.commands.filter { !$0.isEnabled }.map(\.name).sorted())
  }
}

extension AgentInterface {
  fileprivate init(_ interface: GuestAgentAnswers.Interface) {
    self.init(
      name: interface.name, hardwareAddress: interface.hardwareAddress,
      addresses: interface.addresses.map { "\($0.text)/\($0.prefix)" })
  }
}

extension AgentExecution {
  fileprivate init(_ process: Int, _ execution: GuestAgentAnswers.Execution) {
    self.init(
      process: process, hasEnded: execution.hasEnded, status: execution.status,
      signal: execution.signal, output: execution.output, errors: execution.errors,
      isTruncated: execution.isTruncated)
  }
}
