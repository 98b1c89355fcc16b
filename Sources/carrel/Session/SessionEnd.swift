import ArgumentParser
import ControlAPI
import ControlClient

struct SessionEnd: Verb {
  static let configuration = CommandConfiguration(
    commandName: "end", abstract: "Ends a session; a floating desktop is reverted.")

  @Argument(help: "The session.", completion: .custom(Completions.sessions))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(APIPath("sessions", id))
    return Done(ended: id)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String { "Session \(id) is ended." }
}
