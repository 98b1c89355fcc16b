import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopDelete: Verb {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Deletes a desktop with all that is on it.",
    discussion: "The pool makes another if it is short of spares.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Flag(help: "Also if it belongs to somebody.")
  var force = false

  @Flag(help: "Do not wait until it is gone.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(APIPath("desktops", id, query: force ? [("force", "true")] : []))
    if !noWait {
      try await Waiting.untilGone(APIPath("desktops", id), client, terminal, "deleting \(id)")
    }
    return Done(deleted: id)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    noWait ? "Desktop \(id) is being deleted." : "Desktop \(id) is deleted."
  }
}
