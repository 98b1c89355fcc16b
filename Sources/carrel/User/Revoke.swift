import ArgumentParser
import ControlAPI
import ControlClient

struct RevokeCommand: Verb {
  static let configuration = CommandConfiguration(
    commandName: "revoke", abstract: "Takes a pool from a user; sessions there end.")

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var user: String

  @Argument(help: "The pool.", completion: .custom(Completions.pools))
  var pool: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(APIPath("users", user, "pools", pool))
    return Done(revoked: pool)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    "\(user) may no longer use \(pool)."
  }
}
