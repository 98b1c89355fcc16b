/// What is asked of the guest agent in a desktop.
public enum AgentRequest: Hashable, Sendable {
  public enum Shutdown: String, Hashable, Sendable, CaseIterable { case powerdown, reboot, halt }

  case ping, info, networkInterfaces, freeze, thaw, freezeStatus
  case shutdown(Shutdown)
  case setPassword(user: String, password: [UInt8])
  /// Runs a program with the agent's rights, root's as a rule. Waits that long for its end.
  case execute(AgentProgram, seconds: Int)
  case executionStatus(process: Int)
}

public struct AgentProgram: Hashable, Sendable {
  /// Its name, then its arguments; looked for on the agent's path.
  public let command: [String]
  /// For its standard input.
  public let input: [UInt8]?

  public init(command: [String], input: [UInt8]? = nil) {
    self.command = command
    self.input = input
  }
}

extension AgentProgram {
  /// The command in one line, for people.
  fileprivate var line: String {
    String(command.joined(separator: " ").map { $0.isNewline ? " " : $0 })
  }
}

/// What the agent answered. Texts have no control characters.
public enum AgentAnswer: Hashable, Sendable {
  case done
  case info(AgentInfo)
  case interfaces([AgentInterface])
  /// File systems that were frozen or thawed.
  case fileSystems(Int)
  case frozen(Bool)
  case execution(AgentExecution)
}

public struct AgentInfo: Hashable, Sendable {
  public let version: String
  public let enabled: [String]
  /// Those the guest's administrator has forbidden, or that cannot be done now.
  public let disabled: [String]

  public init(version: String, enabled: [String], disabled: [String]) {
    self.version = version
    self.enabled = enabled
    self.disabled = disabled
  }
}

public struct AgentInterface: Hashable, Sendable {
  public let name: String
  public let hardwareAddress: String?
  /// With the length of the prefix: `192.0.2.7/24`.
  public let addresses: [String]

  public init(name: String, hardwareAddress: String?, addresses: [String]) {
    self.name = name
    self.hardwareAddress = hardwareAddress
    self.addresses = addresses
  }
}

/// A program that was started in a guest.
public struct AgentExecution: Hashable, Sendable {
  public let process: Int
  /// What it wrote is known then, and not before.
  public let hasEnded: Bool
  public let status: Int?
  public let signal: Int?
  public let output: [UInt8]
  public let errors: [UInt8]
  public let isTruncated: Bool

  public init(
    process: Int, hasEnded: Bool, status: Int?, signal: Int?, output: [UInt8], errors: [UInt8],
    isTruncated: Bool
  ) {
    self.process = process
    self.hasEnded = hasEnded
    self.status = status
    self.signal = signal
    self.output = output
    self.errors = errors
    self.isTruncated = isTruncated
  }
}

extension AgentRequest {
  private static let longestRecorded = 300

  /// What is written down before it is done; `nil` for what only looks.
  var record: (reason: Reason, text: String)? {
    switch self {
    case .ping, .info, .networkInterfaces, .freezeStatus, .executionStatus: nil
    case .freeze: (.agentFreeze, "its file systems are frozen")
    case .thaw: (.agentThaw, "its file systems are thawed")
    case .shutdown(let mode): (.agentShutdown, "its agent is asked for: \(mode.rawValue)")
    case .setPassword(let user, _): (.agentPassword, "'\(user)' gets a new password in it")
    case .execute(let program, _):
      (.agentExec, "runs in it: \(program.line.prefix(Self.longestRecorded))")
    }
  }
}
