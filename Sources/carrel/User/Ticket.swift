import ArgumentParser
import ControlAPI
import ControlClient

struct TicketCommand: Verb {
  static let configuration = CommandConfiguration(
    commandName: "ticket", abstract: "Issues a one-time password for a viewer.",
    discussion: """
      For viewers that cannot send a user name: the ticket is given as the VNC password, works \
      once and expires.
      """)

  @Argument(
    help: "The user; 'ada/office' and 'ada/office-7' as at a login.",
    completion: .custom(Completions.users))
  var user: String

  @Option(
    help: "The pool, or the user's own desktop, to connect to.",
    completion: .custom(Completions.pools))
  var pool: String?

  @Option(help: "How long it may be used.")
  var seconds: Int?

  @OptionGroup var options: CommonOptions

  func validate() throws {
    guard pool == nil || !user.contains("/") else {
      throw ValidationError("'\(user)' names a pool already: leave out --pool.")
    }
  }

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> TicketDocument {
    let parts = user.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let place = parts.count > 1 ? String(parts[1]) : pool
    return try await client.send(
      .POST, APIPath("users", String(parts[0]), "tickets"),
      TicketRequest(pool: place, seconds: seconds))
  }

  func render(_ answer: TicketDocument, _ terminal: Terminal) -> String { answer.ticket }
}
