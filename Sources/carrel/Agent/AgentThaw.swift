import ArgumentParser
import ControlAPI
import ControlClient

struct AgentThaw: Verb {
  static let configuration = CommandConfiguration(
    commandName: "thaw", abstract: "Lets a guest that was frozen write again.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> AgentFreezeDocument {
    terminal.showProgress("asking \(id)")
    return try await client.post(APIPath("desktops", id, "agent", "thaw"))
  }

  func render(_ answer: AgentFreezeDocument, _ terminal: Terminal) -> String {
    "Desktop \(id) has \(answer.fileSystems ?? 0) file system(s) thawed."
  }
}
