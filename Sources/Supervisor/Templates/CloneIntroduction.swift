import Brokering
import LinuxSystem
import QMP

/// What a clone is told once it runs. Its guest has learnt that it is another machine by
/// VMGENID and fw_cfg; the agent, if there is one, gives it its name.
struct CloneIntroduction: Sendable {
  let directory: DesktopDirectory

  /// Between attempts, and how many: a VMM that does not answer for so long will not.
  private static let pauseMilliseconds: UInt64 = 2000
  private static let attempts = 60

  private static let card = "net0"

  /// Blocks.
  func run() throws {
    let limits = AgentLink.Limits(presence: .seconds(2), answer: .seconds(5))
    let name = directory.desktop.rawValue
    let rename = GuestAgentCommand.Program(path: "hostname", arguments: [name], input: nil)
    // A guest without an agent, or without that program, looks at fw_cfg or keeps its name.
    // It has the name when the program has ended.
    _ = try? AgentRun(agent: directory.agent, program: rename, limits: limits, turns: 50).run()
    let client = ControlClient(path: directory.control)
    let pause = try Pause()
    for attempt in 1... {
      guard Files.exists(directory.unplugged) else { return }
      do {
        try client.perform(.plugIn(card: Self.card), within: .seconds(5))
        return try Files.remove(directory.unplugged)
      } catch {
        guard attempt < Self.attempts else { throw error }
      }
      try pause.wait(milliseconds: Self.pauseMilliseconds)
    }
  }
}
