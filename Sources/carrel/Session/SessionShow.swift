import ArgumentParser
import ControlAPI
import ControlClient

struct SessionShow: Verb {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows one session.")

  @Argument(help: "The session.", completion: .custom(Completions.sessions))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> SessionDocument {
    try await client.get(APIPath("sessions", id))
  }

  func render(_ answer: SessionDocument, _ terminal: Terminal) -> String {
    renderFields([
      ("session", answer.id), ("user", answer.user), ("desktop", answer.desktop),
      ("pool", answer.pool), ("state", answer.state), ("from", answer.peer),
      ("started", answer.started.description), ("changed", answer.changed.description),
    ])
  }
}
