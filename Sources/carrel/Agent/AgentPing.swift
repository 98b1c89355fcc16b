import ArgumentParser
import ControlAPI
import ControlClient

struct AgentPing: Verb {
  static let configuration = CommandConfiguration(
    commandName: "ping", abstract: "Looks whether the guest agent answers.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    terminal.showProgress("asking \(id)")
    try await client.send(.POST, APIPath("desktops", id, "agent", "ping"), [String: String]())
    return Done(changed: id)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    "The guest agent of \(id) answers."
  }
}
