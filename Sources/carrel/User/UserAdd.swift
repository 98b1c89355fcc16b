import ArgumentParser
import ControlAPI
import ControlClient

struct UserAdd: Verb {
  static let configuration = CommandConfiguration(
    commandName: "add", abstract: "Adds a user.",
    discussion: "The password is asked for, or read from standard input with --password-stdin.")

  @Argument(help: "Name of the new user.")
  var name: String

  @OptionGroup var password: PasswordOptions

  @Flag(help: "The user has no password and logs in with tickets.")
  var noPassword = false

  @OptionGroup var options: CommonOptions

  func validate() throws {
    if noPassword, password.passwordStdin {
      throw ValidationError("--no-password and --password-stdin exclude each other")
    }
  }

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> UserDocument {
    let password = noPassword ? nil : try password.read(for: name)
    return try await client.send(
      .POST, APIPath("users"), UserCreation(name: name, password: password))
  }

  func render(_ answer: UserDocument, _ terminal: Terminal) -> String {
    "User \(answer.name) is added.\nNext: 'carrel entitle \(answer.name) POOL'"
  }
}
