import ArgumentParser
import ControlAPI
import ControlClient

struct AgentFreezeStatus: Verb {
  static let configuration = CommandConfiguration(
    commandName: "freeze-status", abstract: "Tells whether the guest's file systems are frozen.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> AgentFreezeDocument {
    terminal.showProgress("asking \(id)")
    return try await client.get(APIPath("desktops", id, "agent", "freeze"))
  }

  func render(_ answer: AgentFreezeDocument, _ terminal: Terminal) -> String {
    "Desktop \(id) is \(answer.frozen ? "frozen" : "not frozen")."
  }
}
