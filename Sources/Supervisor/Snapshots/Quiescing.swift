import Brokering
import LinuxSystem
import Logging
import QMP

/// Has a guest's agent freeze its file systems for a moment, and be sure to thaw them.
///
/// That they are frozen is written down first: whoever finds it after a crash thaws them,
/// for no guest does so by itself.
struct Quiescing: Sendable {
  let directory: DesktopDirectory
  let limits: AgentLink.Limits
  let logger: Logger

  /// A guest is not asked for longer whether it has an agent.
  private static let presence = Duration.seconds(2)

  /// Whether an agent answers. Blocks.
  var isPossible: Bool {
    let limits = AgentLink.Limits(presence: Self.presence, answer: Self.presence)
    return (try? AgentLink(to: directory.agent).ask(.ping, within: limits)) != nil
  }

  /// Whether file systems may be frozen since an earlier `freeze`.
  var isDue: Bool { Files.exists(directory.frozen) }

  /// - Returns: whether they are frozen. Blocks.
  func freeze() throws(SystemError) -> Bool {
    try Files.replace(directory.frozen, with: [])
    do {
      _ = try AgentLink(to: directory.agent).ask(.freeze, within: limits)
      return true
    } catch {
      logger.warning(
        "file systems were not frozen: \(error)", metadata: ["desktop": "\(directory.desktop)"])
      return false
    }
  }

  private static let pauseMilliseconds: UInt64 = 5000

  /// Whatever became of `freeze`: an agent that was slow may have done it since. Blocks.
  ///
  /// - Returns: whether there is nothing left to thaw.
  @discardableResult
  func thaw() -> Bool {
    guard isDue else { return true }
    do {
      _ = try AgentLink(to: directory.agent).ask(.thaw, within: limits)
      try Files.remove(directory.frozen)
      return true
    } catch {
      logger.error(
        "file systems may be frozen; thaw them with 'carrel desktop agent thaw': \(error)",
        metadata: ["desktop": "\(directory.desktop)"])
      return false
    }
  }

  /// The same until it is done, or there is no VMM. An agent that still freezes answers nobody.
  /// Blocks.
  func thawInTheEnd() throws(SystemError) {
    let pause = try Pause()
    while !thaw(), (try? UnixSocket.connect(to: directory.agent, kind: .stream)) != nil {
      try pause.wait(milliseconds: Self.pauseMilliseconds)
    }
  }
}
