import ArgumentParser
import ControlAPI
import ControlClient

struct UserPasswd: Verb {
  static let configuration = CommandConfiguration(
    commandName: "passwd", abstract: "Sets a user's password.")

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var name: String

  @OptionGroup var password: PasswordOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    let change = PasswordChange(password: try password.read(for: name))
    try await client.send(.PUT, APIPath("users", name, "password"), change)
    return Done(changed: name)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    "The password of \(name) is changed."
  }
}
