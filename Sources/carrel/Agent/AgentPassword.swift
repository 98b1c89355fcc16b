import ArgumentParser
import ControlAPI
import ControlClient

struct AgentPassword: Verb {
  static let configuration = CommandConfiguration(
    commandName: "password", abstract: "Sets the password of an account in the guest.",
    discussion: "Accounts of guests are not users of the site: see 'carrel user passwd'.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Argument(help: "The account in the guest.")
  var account: String

  @OptionGroup var password: PasswordOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    let change = AgentPasswordChange(
      user: account, password: try password.read(for: "\(account) in \(id)"))
    terminal.showProgress("asking \(id)")
    try await client.send(.PUT, APIPath("desktops", id, "agent", "password"), change)
    return Done(changed: id)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    "The password of \(account) in \(id) is changed."
  }
}
