import ArgumentParser
import ControlAPI
import ControlClient

struct EntitleCommand: Verb {
  static let configuration = CommandConfiguration(
    commandName: "entitle", abstract: "Lets a user have desktops of a pool.")

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var user: String

  @Argument(help: "The pool.", completion: .custom(Completions.pools))
  var pool: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> UserDocument {
    try await client.put(APIPath("users", user, "pools", pool))
  }

  func render(_ answer: UserDocument, _ terminal: Terminal) -> String {
    "\(user) may use \(answer.pools.joined(separator: ", "))."
  }
}
