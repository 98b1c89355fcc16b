import ArgumentParser
import ControlAPI
import ControlClient

struct StatusCommand: Verb {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Shows how everything is.")

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> StatusDocument {
    try await client.get(APIPath("status"))
  }

  func render(_ answer: StatusDocument, _ terminal: Terminal) -> String {
    let waiting = answer.waiting > 0 ? ", \(answer.waiting) waiting" : ""
    let head = renderFields([
      ("carreld", "\(answer.version), process \(answer.processID), up \(answer.started.age)"),
      (
        "viewers connect to",
        answer.addresses.isEmpty ? "nowhere" : answer.addresses.joined(separator: "  ")
      ),
      ("certificate, SHA-256", answer.fingerprint),
      ("memory", answer.memory.map { Self.text($0, terminal) }),
      ("users", "\(answer.users)"),
      ("sessions", "\(answer.sessions), \(answer.viewers) viewers\(waiting)"),
    ])
    let problems = answer.pools.flatMap { pool in
      [(pool.problem, Terminal.Colour.red), (pool.waiting, .yellow)].compactMap { text, colour in
        text.map { terminal.paint("pool \(pool.name): \($0)", colour) }
      }
    }
    return ([head, "", renderPools(answer.pools, terminal)] + problems).joined(separator: "\n")
  }

  private static func text(_ memory: MemoryDocument, _ terminal: Terminal) -> String {
    let colour: Terminal.Colour? =
      switch memory.state {
      case "tight": .yellow
      case "critical": .red
      default: nil
      }
    return terminal.paint(memory.state, colour)
      + ", \(memory.availableMiB) of \(memory.totalMiB) MiB available; "
      + "\(memory.promisedMiB) MiB promised, \(memory.limitMiB) MiB may be"
  }
}
