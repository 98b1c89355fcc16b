import Brokering
import Synchronization

/// The guest agent of every desktop: writes down what it is asked.
final class TestAgent: Sendable {
  private let state = Mutex<(requests: [AgentRequest], refusal: LaunchError?)>(([], nil))

  var requests: [AgentRequest] { state.withLock { $0.requests } }

  /// From now on it answers nothing else.
  func refuse(with error: LaunchError) { state.withLock { $0.refusal = error } }

  func answer(_ request: AgentRequest) throws(LaunchError) -> AgentAnswer {
    let refusal = state.withLock { state in
      state.requests.append(request)
      return state.refusal
    }
    if let refusal { throw refusal }
    switch request {
    case .ping, .shutdown, .setPassword: return .done
    case .info:
      return .info(
        AgentInfo(version: "7.2", enabled: ["guest-ping"], disabled: ["guest-set-time"]))
    case .networkInterfaces:
      return .interfaces([
        AgentInterface(
          name: "eth0", hardwareAddress: "52:54:00:12:34:56", addresses: ["192.0.2.7/24"])
      ])
    case .freeze, .thaw: return .fileSystems(2)
    case .freezeStatus: return .frozen(false)
    case .execute(let program, let seconds):
      return .execution(execution(of: program, hasEnded: seconds > 0))
    case .executionStatus(let process):
      return .execution(
        AgentExecution(
          process: process, hasEnded: true, status: 0, signal: nil, output: [0xFF, 0x0A],
          errors: [], isTruncated: false))
    }
  }

  /// Writes its command out, and what it was given to its errors; `false` fails.
  private func execution(of program: AgentProgram, hasEnded: Bool) -> AgentExecution {
    AgentExecution(
      process: 41, hasEnded: hasEnded,
      status: hasEnded ? (program.command == ["false"] ? 3 : 0) : nil, signal: nil,
      output: hasEnded ? Array(program.command.joined(separator: " ").utf8) : [],
      errors: program.input ?? [], isTruncated: false)
  }
}
