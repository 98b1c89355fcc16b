import Brokering
import LinuxSystem
import QMP

/// Waits until a booting desktop is worth being taken.
///
/// No guest tells the moment when nothing more comes, so it is looked at again and again:
/// an agent is asked, and screen and processors are watched until they rest.
struct GuestReadiness: Sendable {
  let directory: DesktopDirectory
  let process: ProcessHandle
  let cpus: Int
  let wanted: TemplateReadiness
  /// Whether nobody wants it any more.
  let isUnwanted: @Sendable () -> Bool
  /// Told what is waited for.
  let progress: @Sendable (String) -> Void

  private static let interval: UInt64 = 500
  /// A clock and a cursor change less of the screen.
  private static let restingShare = 0.01
  /// A processor that waits has its ticks to serve.
  private static let idleShare = 0.1

  /// Blocks.
  ///
  /// - Returns: what was seen.
  func wait() throws -> String {
    let deadline = MonotonicClock.now + UInt64(wanted.limitSeconds) * 1_000_000_000
    var sign: String?
    var hasAgent = false
    var rest = RestWatch(directory: directory, process: process, cpus: cpus)
    let pause = try Pause()
    while true {
      guard process.isRunning, !isUnwanted() else {
        throw BrokerError(.conflict, "the desktop that was to be taken ended")
      }
      guard MonotonicClock.now < deadline else {
        throw BrokerError(
          .host,
          "the desktop was not ready after \(wanted.limitSeconds) s: \(missing(sign, hasAgent)); "
            + "look at its screen with 'carrel desktop start' of another, or give it more time")
      }
      if sign == nil, wanted.sign != .screen {
        let (found, isThere) = askAgent()
        sign = found
        hasAgent = hasAgent || isThere
      }
      let rested = rest.look(Self.restingShare, Self.idleShare)
      progress(
        sign == nil && restSign == nil
          ? "waiting: \(missing(sign, hasAgent))"
          : sign ?? "waiting until it rests: \(rested) s of \(wanted.settleSeconds) s")
      if rested >= wanted.settleSeconds, let seen = sign ?? restSign { return seen }
      try pause.wait(milliseconds: Self.interval)
    }
  }

  private var restSign: String? {
    switch wanted.sign {
    case .automatic, .screen: "screen and processors rested"
    case .agent, .marker: nil
    }
  }

  private func missing(_ sign: String?, _ hasAgent: Bool) -> String {
    guard sign == nil else { return "its screen and processors did not rest" }
    switch wanted.sign {
    case .automatic, .screen: return "its screen and processors did not rest"
    case .agent: return "no guest agent answered"
    case .marker(let path):
      return hasAgent ? "its guest agent did not find \(path)" : "no guest agent answered"
    }
  }

  /// What the agent says, and whether there is one.
  private func askAgent() -> (sign: String?, isThere: Bool) {
    let limits = AgentLink.Limits(presence: .milliseconds(300), answer: .seconds(2))
    do {
      guard case .marker(let path) = wanted.sign else {
        _ = try AgentLink(to: directory.agent).ask(.ping, within: limits)
        return ("its guest agent answered", true)
      }
      let test = GuestAgentCommand.Program(path: "test", arguments: ["-e", path])
      let ended = try AgentRun(agent: directory.agent, program: test, limits: limits).run()
      return (ended?.status == 0 ? "its guest agent found \(path)" : nil, true)
    } catch AgentLink.Problem.refused {
      return (nil, true)
    } catch {
      return (nil, false)
    }
  }
}

/// How long a desktop's screen and processors have rested.
private struct RestWatch {
  let directory: DesktopDirectory
  let cpus: Int
  private var picture: [UInt8] = []
  private var time: ProcessorTime
  private var restingSince: UInt64 = MonotonicClock.now

  init(directory: DesktopDirectory, process: ProcessHandle, cpus: Int) {
    self.directory = directory
    self.cpus = cpus
    time = ProcessorTime(process.identifier)
  }

  /// - Returns: whole seconds.
  mutating func look(_ restingShare: Double, _ idleShare: Double) -> Int {
    let now = MonotonicClock.now
    let next = screen()
    let changed = zip(next, picture).count { $0 != $1 }
    let isResting =
      next.count == picture.count && Double(changed) <= restingShare * Double(max(1, next.count))
    let isIdle = time.shareSinceLastLook() <= idleShare * Double(cpus)
    // What is compared with stays: a screen that changes slowly does not rest.
    if !isResting || !isIdle || picture.isEmpty {
      restingSince = now
      picture = next
    }
    return Int((now - restingSince) / 1_000_000_000)
  }

  private func screen() -> [UInt8] {
    let client = ControlClient(path: directory.control)
    let path = directory.screenshot
    defer { try? Files.remove(path) }
    guard (try? client.perform(.picture(path: path), within: .seconds(5))) != nil else { return [] }
    return (try? Files.read(path, limit: 256 << 20)) ?? []
  }
}
