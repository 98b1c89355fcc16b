import ArgumentParser
import ControlAPI
import ControlClient

struct ExplainCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain", abstract: "Says why things are as they are.",
    subcommands: [ExplainUser.self])
}

struct ExplainUser: Verb {
  static let configuration = CommandConfiguration(
    commandName: "user",
    abstract: "What a login of the user would do now, and what happened before.")

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var name: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> ExplanationDocument {
    try await client.get(APIPath("users", name, "explanation"))
  }

  func render(_ answer: ExplanationDocument, _ terminal: Terminal) -> String {
    var now = Table("LOGIN AS", "REASON", "WHAT WOULD HAPPEN NOW")
    for outcome in answer.now {
      let login = outcome.pool.map { "\(name)/\($0)" } ?? name
      now.add(
        .init(login), .init(outcome.reason, outcome.reason.contains("refused") ? .red : .green),
        .init(outcome.text))
    }
    var history = Table("TIME", "REASON", "WHAT HAPPENED")
    for decision in answer.history {
      history.add(.init(decision.time.description), .init(decision.reason), .init(decision.text))
    }
    return now.render(terminal, empty: "") + "\n\n"
      + history.render(terminal, empty: "Nothing has happened yet.")
  }
}
