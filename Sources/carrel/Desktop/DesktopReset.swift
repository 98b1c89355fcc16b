import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopReset: Verb {
  static let configuration = CommandConfiguration(
    commandName: "reset", abstract: "Presses the reset button, or tries again after failures.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Flag(help: "Do not wait until it is done.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> DesktopDocument {
    let answer: DesktopDocument = try await client.post(
      APIPath("desktops", id, "reset"))
    guard !noWait else { return answer }
    return try await Waiting.untilDesktop(
      id, client, terminal, "resetting", isDone: { $0.power == "running" })
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    "Desktop \(id) is reset."
  }
}
