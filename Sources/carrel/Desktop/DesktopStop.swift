import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopStop: Verb {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "Switches a desktop off, and keeps it off.",
    discussion: """
      Presses the power button, and tells the guest's agent if there is one; a guest that does \
      not shut down in time is killed.
      """)

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Flag(help: "Also while somebody is using it.")
  var force = false

  @Flag(help: "Do not wait until it is done.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> DesktopDocument {
    let answer: DesktopDocument = try await client.post(
      APIPath("desktops", id, "stop", query: force ? [("force", "true")] : []))
    guard !noWait else { return answer }
    return try await Waiting.untilDesktop(
      id, client, terminal, "stopping", isDone: { $0.power == "off" })
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    "Desktop \(id) is \(answer.power)."
  }
}
