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

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var user: String

  @Option(help: "The pool to connect to.", completion: .custom(Completions.pools))
  var pool: String?

  @Option(help: "How long it may be used.")
  var seconds: Int?

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> TicketDocument {
    try await client.send(
      .POST, APIPath("users", user, "tickets"), TicketRequest(pool: pool, seconds: seconds))
  }

  func render(_ answer: TicketDocument, _ terminal: Terminal) -> String { answer.ticket }
}
