import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopList: Verb {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the desktops.")

  @Option(help: "Only of this pool.", completion: .custom(Completions.pools))
  var pool: String?

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [DesktopDocument] {
    try await client.get(APIPath("desktops", query: pool.map { [("pool", $0)] } ?? []))
  }

  func render(_ answer: [DesktopDocument], _ terminal: Terminal) -> String {
    var table = Table("DESKTOP", "POOL", "PHASE", "POWER", "OWNER", "VIEWER", "SINCE", "PROBLEM")
    for desktop in answer {
      table.add(
        .init(desktop.id), .init(desktop.pool),
        .init(desktop.held ? "\(desktop.phase), held" : desktop.phase, phaseColour(desktop.phase)),
        .init(desktop.powerText), .init(desktop.owner.orDash), .init(desktop.viewer.orDash),
        .init(desktop.since.age), .init(desktop.problem.orDash))
    }
    return table.render(terminal, empty: "There are no desktops.")
  }
}
