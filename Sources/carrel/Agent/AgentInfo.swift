import ArgumentParser
import ControlAPI
import ControlClient

struct AgentInfo: Verb {
  static let configuration = CommandConfiguration(
    commandName: "info", abstract: "Shows the guest agent's version and what it can do.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> AgentDocument {
    terminal.showProgress("asking \(id)")
    return try await client.get(APIPath("desktops", id, "agent"))
  }

  func render(_ answer: AgentDocument, _ terminal: Terminal) -> String {
    renderFields([
      ("desktop", id), ("version", answer.version),
      ("commands", answer.enabled.joined(separator: " ")),
      ("disabled", answer.disabled.isEmpty ? nil : answer.disabled.joined(separator: " ")),
    ])
  }
}
