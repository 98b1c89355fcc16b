import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopSuspend: Verb {
  static let configuration = CommandConfiguration(
    commandName: "suspend",
    abstract: "Saves a user's desktop in a file and frees its memory.",
    discussion: "It goes on from there when its user logs in, or by 'carrel desktop resume'.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Flag(help: "Also while somebody is using it.")
  var force = false

  @Flag(help: "Do not wait until it is done.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> DesktopDocument {
    let answer: DesktopDocument = try await client.post(
      APIPath("desktops", id, "suspend", query: force ? [("force", "true")] : []))
    guard !noWait else { return answer }
    return try await Waiting.untilDesktop(
      id, client, terminal, "suspending", seconds: 600,
      problem: { $0.phase == "suspended" ? nil : $0.problem },
      isDone: { $0.power == "off" || ($0.phase != "suspended" && $0.problem == nil) })
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    "Desktop \(id) is \(answer.phase)."
  }
}
