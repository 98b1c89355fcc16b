import ArgumentParser
import ControlAPI
import ControlClient

struct PoolDelete: Verb {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Deletes a pool and its desktops.")

  @Argument(help: "Name of the pool.", completion: .custom(Completions.pools))
  var name: String

  @Flag(help: "Also desktops that belong to users, with all that is on them.")
  var force = false

  @Flag(help: "Do not wait until everything is gone.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(APIPath("pools", name, query: force ? [("force", "true")] : []))
    if !noWait {
      try await Waiting.untilGone(
        APIPath("pools", name), client, terminal, "deleting the desktops of \(name)")
    }
    return Done(deleted: name)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    noWait ? "Pool \(name) is being deleted." : "Pool \(name) is deleted."
  }
}
