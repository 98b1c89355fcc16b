import ArgumentParser
import ControlAPI
import ControlClient

struct UserShow: Verb {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows one user.")

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var name: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> UserDocument {
    try await client.get(APIPath("users", name))
  }

  func render(_ answer: UserDocument, _ terminal: Terminal) -> String {
    carrel.render(answer)
  }
}

func render(_ user: UserDocument) -> String {
  renderFields([
    ("user", user.name), ("state", user.disabled ? "disabled" : "enabled"),
    ("login", user.hasPassword ? "password or ticket" : "tickets only"),
    (
      "pools",
      user.pools.isEmpty
        ? "none: 'carrel entitle \(user.name) POOL'"
        : user.pools.joined(separator: ", ")
    ),
    ("desktops", user.desktops.isEmpty ? "none" : user.desktops.joined(separator: ", ")),
    ("created", user.created.description),
  ])
}
