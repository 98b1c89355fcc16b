import ArgumentParser
import ControlAPI
import ControlClient

struct AgentNetwork: Verb {
  static let configuration = CommandConfiguration(
    commandName: "network", abstract: "Lists the guest's network interfaces and addresses.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @OptionGroup var options: CommonOptions

  func call(
    _ client: ControlClient, _ terminal: Terminal
  ) async throws -> [AgentInterfaceDocument] {
    terminal.showProgress("asking \(id)")
    return try await client.get(APIPath("desktops", id, "agent", "network"))
  }

  func render(_ answer: [AgentInterfaceDocument], _ terminal: Terminal) -> String {
    var table = Table("INTERFACE", "HARDWARE ADDRESS", "ADDRESSES")
    for interface in answer {
      table.add(
        .init(interface.name), .init(interface.hardwareAddress.orDash),
        .init(interface.addresses.isEmpty ? "-" : interface.addresses.joined(separator: " ")))
    }
    return table.render(terminal, empty: "The guest has no network interfaces.")
  }
}
