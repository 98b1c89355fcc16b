import ArgumentParser
import ControlAPI
import ControlClient

struct AgentShutdownVerb: Verb {
  static let configuration = CommandConfiguration(
    commandName: "shutdown", abstract: "Has the guest shut itself down.",
    discussion: """
      It is as if its user did: a floating desktop is thrown away then. 'carrel desktop stop' \
      also ends a guest that does not.
      """)

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Flag(help: "Start again.")
  var reboot = false

  @Flag(help: "Stop, and leave the power on.")
  var halt = false

  @Flag(help: "Also while somebody is using it.")
  var force = false

  @OptionGroup var options: CommonOptions

  func validate() throws {
    if reboot && halt {
      throw ValidationError("a guest reboots or halts: give --reboot or --halt, not both.")
    }
  }

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    terminal.showProgress("asking \(id)")
    try await client.send(
      .POST,
      APIPath("desktops", id, "agent", "shutdown", query: force ? [("force", "true")] : []),
      AgentShutdown(mode: reboot ? "reboot" : halt ? "halt" : "powerdown"))
    return Done(changed: id)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String {
    "Desktop \(id) is \(reboot ? "rebooting" : halt ? "halting" : "shutting down")."
  }
}
