import ArgumentParser
import ControlAPI
import ControlClient

struct UserList: Verb {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the users.")

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [UserDocument] {
    try await client.get(APIPath("users"))
  }

  func render(_ answer: [UserDocument], _ terminal: Terminal) -> String {
    var table = Table("USER", "LOGIN", "POOLS", "DESKTOPS")
    for user in answer {
      let login = user.disabled ? "disabled" : user.hasPassword ? "password" : "tickets only"
      table.add(
        .init(user.name), .init(login, user.disabled ? .red : nil),
        .init(user.pools.isEmpty ? "-" : user.pools.joined(separator: ", ")),
        .init(user.desktops.isEmpty ? "-" : user.desktops.joined(separator: ", ")))
    }
    return table.render(terminal, empty: "There are no users. Add one: 'carrel user add NAME'")
  }
}
