import ArgumentParser
import ControlAPI
import ControlClient

struct SnapshotList: Verb {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Draws a desktop's snapshots, each under the one before it.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var desktop: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [SnapshotDocument] {
    try await client.get(APIPath("desktops", desktop, "snapshots"))
  }

  func render(_ answer: [SnapshotDocument], _ terminal: Terminal) -> String {
    guard !answer.isEmpty else {
      return
        "Desktop \(desktop) has no snapshots. Take one with 'carrel snapshot create \(desktop)'"
    }
    let names = Set(answer.map(\.name))
    func trees(after parent: String?) -> [Tree] {
      // Those whose own was deleted begin a branch.
      answer.filter { $0.parent.flatMap { names.contains($0) ? $0 : nil } == parent }.map {
        let now = $0.current ? [Tree(text: terminal.bold("(now)"))] : []
        return Tree(text: text($0, terminal), children: now + trees(after: $0.name))
      }
    }
    let now = answer.contains(where: \.current) ? [] : [Tree(text: terminal.bold("(now)"))]
    return Tree(text: desktop, children: trees(after: nil) + now).rendered
  }

  private func text(_ snapshot: SnapshotDocument, _ terminal: Terminal) -> String {
    let kind =
      switch snapshot.state {
      case "making": terminal.paint("being taken", .yellow)
      case "failed": terminal.paint("failed: \(snapshot.problem ?? "")", .red)
      default: snapshot.memory ? "running, \(byteText(snapshot.memoryBytes))" : "off"
      }
    return "\(snapshot.name)  \(kind)  \(snapshot.created.age) ago"
  }
}
