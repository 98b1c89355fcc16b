import ArgumentParser
import ControlAPI
import ControlClient
import Foundation

struct DesktopScreenshot: Verb {
  static let configuration = CommandConfiguration(
    commandName: "screenshot", abstract: "Saves what a desktop shows as PNG.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Option(
    name: .shortAndLong, help: "The file to write; ID.png if left out.", completion: .file())
  var output: String?

  @OptionGroup var options: CommonOptions

  private var file: String { output ?? "\(id).png" }

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    let picture = try await client.bytes(APIPath("desktops", id, "screenshot"))
    do {
      try Data(picture).write(to: URL(fileURLWithPath: file), options: .atomic)
    } catch {
      throw CommandFailure(
        "the screenshot cannot be written to \(file): name another file with --output")
    }
    return Done(file: file)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String { file }
}
