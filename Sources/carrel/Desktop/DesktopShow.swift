import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopShow: Verb {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows one desktop.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> DesktopDocument {
    try await client.get(APIPath("desktops", id))
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    carrel.render(answer)
  }
}

extension DesktopDocument {
  /// With what a start is at.
  var powerText: String {
    guard let step else { return power }
    return "\(power), \(step)" + (percent.map { " (\($0) %)" } ?? "")
  }
}

func render(_ desktop: DesktopDocument) -> String {
  renderFields([
    ("desktop", desktop.id), ("pool", desktop.pool),
    ("phase", desktop.held ? "\(desktop.phase), held" : desktop.phase),
    ("power", desktop.powerText),
    ("owner", desktop.owner), ("session", desktop.session), ("viewer", desktop.viewer),
    ("starts", "\(desktop.generation)"),
    ("failures", desktop.failures > 0 ? "\(desktop.failures)" : nil),
    ("going back to", desktop.reverting), ("waiting", desktop.waiting),
    ("problem", desktop.problem),
    ("since", desktop.since.description),
    ("display link", desktop.displayLink),
  ])
}
