import ArgumentParser
import ControlAPI
import ControlClient

/// Which snapshot of which desktop.
struct SnapshotArguments: ParsableArguments {
  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var desktop: String

  @Argument(help: "The snapshot.", completion: .custom(Completions.snapshots))
  var name: String

  func path(_ more: String..., query: [(String, String)] = []) -> APIPath {
    APIPath(["desktops", desktop, "snapshots", name] + more, query: query)
  }
}

struct SnapshotShow: Verb {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows one snapshot.")

  @OptionGroup var snapshot: SnapshotArguments
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> SnapshotDocument {
    try await client.get(snapshot.path())
  }

  func render(_ answer: SnapshotDocument, _ terminal: Terminal) -> String {
    renderFields([
      ("snapshot", answer.name), ("desktop", snapshot.desktop), ("state", answer.state),
      ("problem", answer.problem), ("after", answer.parent),
      ("memory", answer.memory ? memoryText(answer) : "none: its guest boots"),
      ("file systems", answer.quiesced ? "frozen by the guest agent" : nil),
      ("pause", answer.pauseMicroseconds.map { "\($0) µs" }),
      ("current", answer.current ? "yes: the desktop came from it" : nil),
      ("taken", answer.created.description),
    ])
  }

  private func memoryText(_ answer: SnapshotDocument) -> String {
    byteText(answer.memoryBytes) + (answer.differential ? ", with an earlier one's" : "")
  }
}

struct SnapshotRevert: Verb {
  static let configuration = CommandConfiguration(
    commandName: "revert", abstract: "Has a desktop go on from a snapshot.",
    discussion: "What was since is lost. Its viewer stays, and sees the desktop as it was.")

  @OptionGroup var snapshot: SnapshotArguments

  @Flag(help: "Also while somebody is using it.")
  var force = false

  @Flag(help: "Do not wait until it runs.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> DesktopDocument {
    let answer: DesktopDocument = try await client.post(
      snapshot.path("revert", query: force ? [("force", "true")] : []))
    guard !noWait else { return answer }
    return try await Waiting.untilDesktop(
      snapshot.desktop, client, terminal, "reverting", seconds: 600,
      problem: { $0.reverting == nil ? $0.problem : nil },
      isDone: { $0.power == "running" && $0.reverting == nil && $0.problem == nil })
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    answer.power == "running" && answer.reverting == nil
      ? "Desktop \(snapshot.desktop) runs from snapshot \(snapshot.name)."
      : "Desktop \(snapshot.desktop) goes back to snapshot \(snapshot.name)."
  }
}

struct SnapshotDelete: Verb {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Deletes a snapshot; the desktop stays as it is.")

  @OptionGroup var snapshot: SnapshotArguments
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(snapshot.path())
    return Done(deleted: snapshot.name)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    "Snapshot \(snapshot.name) of \(snapshot.desktop) is deleted."
  }
}
