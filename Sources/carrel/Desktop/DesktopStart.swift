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
    return try await Waiting.untilRunning(id, client, terminal, "starting")
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    powerText(answer)
  }

  func verdict(_ answer: DesktopDocument) -> CommandFailure? {
    noWait ? nil : waitProblem(answer)
  }
}
