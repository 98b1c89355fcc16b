import ArgumentParser
import ControlAPI
import ControlClient

struct AgentExecStatus: Verb {
  static let configuration = CommandConfiguration(
    commandName: "exec-status", abstract: "Looks after a program that 'exec' did not wait for.",
    discussion: "What it wrote is told once: the agent forgets a program whose end it has told.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Argument(help: "The process, as 'exec' told it.")
  var process: Int

  @OptionGroup var options: CommonOptions

  func call(
    _ client: ControlClient, _ terminal: Terminal
  ) async throws -> AgentExecutionDocument {
    terminal.showProgress("asking \(id)")
    return try await client.get(APIPath("desktops", id, "agent", "exec", "\(process)"))
  }

  func render(_ answer: AgentExecutionDocument, _ terminal: Terminal) -> String {
    answer.show()
    return ""
  }

  func verdict(_ answer: AgentExecutionDocument) -> CommandFailure? {
    answer.verdict(of: "process \(process)", in: id)
  }
}
