import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopStart: Verb {
  static let configuration = CommandConfiguration(
    commandName: "start", abstract: "Switches a desktop on.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Flag(help: "Do not wait until it is done.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> DesktopDocument {
    let answer: DesktopDocument = try await client.post(
      APIPath("desktops", id, "start"))
    guard !noWait else { return answer }
    return try await Waiting.untilDesktop(
      id, client, terminal, "starting", isDone: { $0.power == "running" })
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    "Desktop \(id) is \(answer.power)."
  }
}
