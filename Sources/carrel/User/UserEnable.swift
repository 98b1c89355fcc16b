import ArgumentParser
import ControlAPI
import ControlClient

struct UserEnable: Verb {
  static let configuration = CommandConfiguration(
    commandName: "enable", abstract: "Lets a disabled user in again.")

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var name: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> UserDocument {
    try await client.send(
      .PUT, APIPath("users", name, "disabled"), DisabledChange(disabled: false))
  }

  func render(_ answer: UserDocument, _ terminal: Terminal) -> String {
    "User \(name) is enabled."
  }
}
