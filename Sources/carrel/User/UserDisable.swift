import ArgumentParser
import ControlAPI
import ControlClient

struct UserDisable: Verb {
  static let configuration = CommandConfiguration(
    commandName: "disable", abstract: "Keeps a user out; viewers are closed, desktops are kept.")

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var name: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> UserDocument {
    try await client.send(
      .PUT, APIPath("users", name, "disabled"), DisabledChange(disabled: true))
  }

  func render(_ answer: UserDocument, _ terminal: Terminal) -> String {
    "User \(name) is disabled."
  }
}
