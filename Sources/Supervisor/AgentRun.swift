import LinuxSystem
import QMP

/// A program of a guest's, run to its end through the agent at a socket. The agent does not
/// tell of the end by itself.
struct AgentRun: Sendable {
  let agent: String
  let program: GuestAgentCommand.Program
  let limits: AgentLink.Limits
  /// For the program, once it runs.
  var turns = 20

  private static let interval: UInt64 = 100

  /// Blocks.
  ///
  /// - Returns: how it ended; `nil` when it has not yet, or the agent does not say.
  func run() throws -> GuestAgentAnswers.Execution? {
    let started = try AgentLink(to: agent).ask(.execute(program), within: limits)
    guard let process = GuestAgentAnswers.process(started) else { return nil }
    let pause = try Pause()
    for turn in 0..<turns {
      if turn > 0 { try pause.wait(milliseconds: Self.interval) }
      let answer = try AgentLink(to: agent).ask(.executionStatus(process: process), within: limits)
      guard let execution = GuestAgentAnswers.execution(answer) else { return nil }
      if execution.hasEnded { return execution }
    }
    return nil
  }
}
