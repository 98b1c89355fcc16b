import ArgumentParser
import ControlAPI
import ControlClient

struct SessionList: Verb {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the sessions.")

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [SessionDocument] {
    try await client.get(APIPath("sessions"))
  }

  func render(_ answer: [SessionDocument], _ terminal: Terminal) -> String {
    var table = Table("SESSION", "USER", "DESKTOP", "STATE", "FROM", "STARTED", "CHANGED")
    for session in answer {
      table.add(
        .init(session.id), .init(session.user), .init(session.desktop),
        .init(session.state, phaseColour(session.state)), .init(session.peer),
        .init(session.started.age), .init(session.changed.age))
    }
    return table.render(terminal, empty: "There are no sessions.")
  }
}
