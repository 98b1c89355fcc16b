import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopAssign: Verb {
  static let configuration = CommandConfiguration(
    commandName: "assign", abstract: "Gives a clean desktop to a user, as manual pools need it.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Argument(help: "The user.", completion: .custom(Completions.users))
  var user: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> DesktopDocument {
    try await client.send(.POST, APIPath("desktops", id, "assign"), Assignment(user: user))
  }

  func render(_ answer: DesktopDocument, _ terminal: Terminal) -> String {
    "Desktop \(id) is \(user)'s now."
  }
}
