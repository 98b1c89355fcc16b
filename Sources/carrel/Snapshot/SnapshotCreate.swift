import ArgumentParser
import ControlAPI
import ControlClient
import Foundation

struct SnapshotCreate: Verb {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Takes a snapshot of a desktop, which runs on.",
    discussion: """
      Of a desktop that runs, memory, devices and disk are taken at one instant, for which it \
      stands some milliseconds; if its guest agent answers, file systems are frozen for it. Of \
      one that is off, its disk is taken.
      """)

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var desktop: String

  @Argument(help: "What to call the snapshot; the time if left out.")
  var name: String?

  @Flag(help: "Do not have the guest agent freeze file systems.")
  var noQuiesce = false

  @Flag(help: "Do not wait until it is taken.")
  var noWait = false

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> SnapshotDocument {
    var creation = SnapshotCreation(name: name ?? Self.nameOfNow())
    if noQuiesce { creation.quiesce = false }
    let begun: SnapshotDocument = try await client.send(
      .POST, APIPath("desktops", desktop, "snapshots"), creation)
    guard !noWait else { return begun }
    return try await Waiting.until(
      seconds: 3600,
      ask: { () async throws -> SnapshotDocument in
        try await client.get(APIPath("desktops", desktop, "snapshots", creation.name))
      },
      problem: { snapshot in
        snapshot.problem.map { "snapshot '\(snapshot.name)' was not taken: \($0)" }
      },
      progress: {
        terminal.showProgress(
          "taking \(desktop)", done: $0.percent, of: $0.percent.map { _ in 100 })
      },
      isDone: { $0.state == "ready" })
  }

  /// `20261130-114205`
  private static func nameOfNow() -> String {
    let now = WireTime(milliseconds: Int64(Date().timeIntervalSince1970 * 1000))
    return now.description.prefix(19).filter(\.isNumber).enumerated()
      .map { $0.offset == 8 ? "-\($0.element)" : String($0.element) }.joined()
  }

  func render(_ answer: SnapshotDocument, _ terminal: Terminal) -> String {
    guard answer.state == "ready" else {
      return "Snapshot \(answer.name) is being taken: see 'carrel snapshot list \(desktop)'"
    }
    let pause = answer.pauseMicroseconds.map { " in \($0 / 1000) ms" } ?? ""
    return "Snapshot \(answer.name) of \(desktop) is taken\(pause).\n"
      + "Go back with 'carrel snapshot revert \(desktop) \(answer.name)'"
  }
}
