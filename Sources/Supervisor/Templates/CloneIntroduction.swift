import Brokering
import LinuxSystem
import QMP

/// What a clone is told once it runs. Its guest has learnt that it is another machine by
/// VMGENID and fw_cfg; the agent, if there is one, gives it its name.
struct CloneIntroduction: Sendable {
  let directory: DesktopDirectory
  let hasCard: Bool

  private static let card = "net0"

  /// Blocks.
  func run() throws {
    let limits = AgentLink.Limits(presence: .seconds(2), answer: .seconds(5))
    let name = directory.desktop.rawValue
    let rename = GuestAgentCommand.Program(path: "hostname", arguments: [name], input: nil)
    // A guest without an agent, or without that program, looks at fw_cfg or keeps its name.
    _ = try? AgentLink(to: directory.agent).ask(.execute(rename), within: limits)
    guard hasCard else { return }
    let client = ControlClient(path: directory.control)
    try client.perform(.plugIn(card: Self.card), within: .seconds(5))
  }
}
