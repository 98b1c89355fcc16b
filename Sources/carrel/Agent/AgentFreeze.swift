import ArgumentParser
import ControlAPI
import ControlClient

struct AgentFreeze: Verb {
  static let configuration = CommandConfiguration(
    commandName: "freeze", abstract: "Has the guest write its file systems out and hold writes.",
    discussion: "Whoever writes in the guest stands still until 'carrel desktop agent thaw'.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> AgentFreezeDocument {
    terminal.showProgress("asking \(id)")
    return try await client.post(APIPath("desktops", id, "agent", "freeze"))
  }

  func render(_ answer: AgentFreezeDocument, _ terminal: Terminal) -> String {
    "Desktop \(id) has \(answer.fileSystems ?? 0) file system(s) frozen: "
      + "'carrel desktop agent thaw \(id)' lets it go on."
  }
}
