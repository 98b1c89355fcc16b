import Brokering
import LinuxSystem
import QMP

/// The clock of a guest that goes on from where it was saved, which stood since then.
package enum GuestClock {
  /// Generous: the agent was woken with its guest, which may have much to make up for.
  private static let limits = AgentLink.Limits(presence: .seconds(10), answer: .seconds(10))

  /// Sets it to this host's, through the agent at that socket. Blocks.
  ///
  /// - Throws: where none answers; such a guest keeps time by itself.
  package static func set(through agent: String) throws(AgentLink.Problem) {
    // Time passes until an agent says that it is there.
    _ = try AgentLink(to: agent).ask(.ping, within: limits)
    let now = WallClock.now
    let time = now.seconds * 1_000_000_000 + Int64(now.nanoseconds)
    do {
      _ = try AgentLink(to: agent).ask(.setTime(nanoseconds: time), within: limits)
    } catch .refused {
      // Linux's agent sets none where hwclock is not installed.
      let date = GuestAgentCommand.Program(path: "date", arguments: ["-s", "@\(now.seconds)"])
      _ = try AgentLink(to: agent).ask(.execute(date), within: limits)
    }
  }
}

extension Supervisor {
  func setClock(of desktop: DesktopID) {
    let agent = directory(of: desktop).agent
    Task { try? await offPool { try GuestClock.set(through: agent) } }
  }
}
