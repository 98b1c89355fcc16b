import Brokering
import ControlAPI
import Foundation
import Hummingbird

extension ControlServer {
  private static let longestWait = 3600

  static func addAgentRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    router.get("/v1/desktops/{id}/agent") { _, context in
      guard case .info(let info) = try await broker.askAgent(of: context.desktop, .info) else {
        throw BrokerError.otherAnswer
      }
      return answer(
        AgentDocument(version: info.version, enabled: info.enabled, disabled: info.disabled))
    }
    router.post("/v1/desktops/{id}/agent/ping") { _, context in
      _ = try await broker.askAgent(of: context.desktop, .ping)
      return HTTPResponse.Status.noContent
    }
    router.get("/v1/desktops/{id}/agent/network") { _, context in
      guard
        case .interfaces(let found) = try await broker.askAgent(
          of: context.desktop, .networkInterfaces)
      else { throw BrokerError.otherAnswer }
      return answer(found.map(AgentInterfaceDocument.init))
    }
    router.post("/v1/desktops/{id}/agent/shutdown") { request, context in
      let wanted = try await request.body(as: AgentShutdown.self)
      let mode: AgentRequest.Shutdown = try choice(wanted.mode, "mode") ?? .powerdown
      _ = try await broker.askAgent(of: context.desktop, .shutdown(mode), force: request.force)
      return HTTPResponse.Status.noContent
    }
    router.put("/v1/desktops/{id}/agent/password") { request, context in
      let change = try await request.body(as: AgentPasswordChange.self)
      guard !change.user.isEmpty, !change.password.isEmpty else {
        throw BrokerError(.invalid, "an account's name and password are not empty: give both")
      }
      _ = try await broker.askAgent(
        of: context.desktop,
        .setPassword(user: change.user, password: [UInt8](change.password.utf8)))
      return HTTPResponse.Status.noContent
    }
    addFreezeRoutes(to: router, broker)
    addExecutionRoutes(to: router, broker)
  }

  private static func addFreezeRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    router.get("/v1/desktops/{id}/agent/freeze") { _, context in
      guard
        case .frozen(let isFrozen) = try await broker.askAgent(of: context.desktop, .freezeStatus)
      else { throw BrokerError.otherAnswer }
      return answer(AgentFreezeDocument(frozen: isFrozen))
    }
    let commands: [(String, AgentRequest, Bool)] = [
      ("freeze", .freeze, true), ("thaw", .thaw, false),
    ]
    for (verb, command, isFrozen) in commands {
      router.post("/v1/desktops/{id}/agent/\(verb)") { _, context in
        guard case .fileSystems(let count) = try await broker.askAgent(of: context.desktop, command)
        else { throw BrokerError.otherAnswer }
        return answer(AgentFreezeDocument(frozen: isFrozen, fileSystems: count))
      }
    }
  }

  private static func addExecutionRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    router.post("/v1/desktops/{id}/agent/exec") { request, context in
      let wanted = try await request.body(as: AgentProgramDocument.self)
      guard wanted.command.first?.isEmpty == false else {
        throw BrokerError(.invalid, "no program is named: give its name, then its arguments")
      }
      let seconds = wanted.seconds ?? 30
      guard (0...longestWait).contains(seconds) else {
        throw BrokerError(.invalid, "seconds is \(seconds): choose 0 to \(longestWait)")
      }
      let program = AgentProgram(
        command: wanted.command, input: wanted.input.map { [UInt8]($0) })
      return try await run(.execute(program, seconds: seconds), context.desktop, broker)
    }
    router.get("/v1/desktops/{id}/agent/exec/{process}") { _, context in
      let text = try context.parameters.require("process")
      guard let process = Int(text), process >= 0 else {
        throw BrokerError(.invalid, "'\(text)' is no process: give the number that exec told")
      }
      return try await run(.executionStatus(process: process), context.desktop, broker)
    }
  }

  private static func run(
    _ request: AgentRequest, _ desktop: DesktopID, _ broker: Broker
  ) async throws -> JSONAnswer<AgentExecutionDocument> {
    guard case .execution(let execution) = try await broker.askAgent(of: desktop, request) else {
      throw BrokerError.otherAnswer
    }
    return answer(AgentExecutionDocument(execution))
  }
}

extension ControlContext {
  fileprivate var desktop: DesktopID {
    get throws { try name("id", as: DesktopID.self) }
  }
}

extension BrokerError {
  fileprivate static let otherAnswer = BrokerError(
    .host, "the guest agent was asked one thing and answered another: try again")
}

extension AgentInterfaceDocument {
  fileprivate init(_ interface: AgentInterface) {
    self.init(
      name: interface.name, hardwareAddress: interface.hardwareAddress,
      addresses: interface.addresses)
  }
}

extension AgentExecutionDocument {
  fileprivate init(_ execution: AgentExecution) {
    self.init(
      process: execution.process, ended: execution.hasEnded, status: execution.status,
      signal: execution.signal, output: Data(execution.output), errors: Data(execution.errors),
      truncated: execution.isTruncated)
  }
}
