import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopRelease: Verb {
  static let configuration = CommandConfiguration(
    commandName: "release", abstract: "Takes a desktop from its user and reverts it.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Flag(help: "Also while somebody is using it.")
  var force = false

  @Flag(help: "Do not wait until it is done.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> DesktopDocument {
    let answer: DesktopDocument = try await client.post(
      APIPath("desktops", id, "release", query: force ? [("force", "true")] : []))
    guard !noWait else { return answer }
    return try await Waiting.until(
      seconds: 90, ask: { () async throws -> DesktopDocument in try await ask(client, answer) },
      problem: startProblem,
      progress: { _ in terminal.showProgress("reverting \(id)") },
      isDone: { $0.phase == "clean" || $0.phase == "deleted" })
  }

  /// A pool that has spares enough does not keep it.
  private func ask(
    _ client: ControlClient, _ last: DesktopDocument
  ) async throws -> DesktopDocument {
    do {
      return try await client.get(APIPath("desktops", id))
    } catch {
      guard error.kind == .refused(.notFound) else { throw error }
      var gone = last
      gone.phase = "deleted"
      gone.power = "off"
      return gone
    }
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    answer.phase == "deleted"
      ? "Desktop \(id) is deleted: its pool has spares enough."
      : "Desktop \(id) is \(answer.phase)."
  }
}
