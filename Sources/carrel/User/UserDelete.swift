import ArgumentParser
import ControlAPI
import ControlClient

struct UserDelete: Verb {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Deletes a user.")

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var name: String

  @Flag(help: "Also with desktops of theirs: these are reverted.")
  var force = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(APIPath("users", name, query: force ? [("force", "true")] : []))
    return Done(deleted: name)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String { "User \(name) is deleted." }
}
