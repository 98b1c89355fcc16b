import FoundationEssentials

/// The guest agent in a desktop.
public struct AgentDocument: Codable, Hashable, Sendable {
  public var version: String
  /// Names of the commands it carries out.
  public var enabled: [String]
  /// Those it knows and does not carry out.
  public var disabled: [String]

  public init(version: String, enabled: [String], disabled: [String]) {
    self.version = version
    self.enabled = enabled
    self.disabled = disabled
  }
}

/// A network interface as a guest sees it.
public struct AgentInterfaceDocument: Codable, Hashable, Sendable {
  public var name: String
  public var hardwareAddress: String?
  /// `192.0.2.7/24`, `2001:db8::7/64`.
  public var addresses: [String]

  public init(name: String, hardwareAddress: String?, addresses: [String]) {
    self.name = name
    self.hardwareAddress = hardwareAddress
    self.addresses = addresses
  }
}

public struct AgentShutdown: Codable, Hashable, Sendable {
  /// `powerdown`, `reboot` or `halt`.
  public var mode: String
  public init(mode: String) { self.mode = mode }
}

/// For an account of the guest, which has nothing to do with users of the site.
public struct AgentPasswordChange: Codable, Hashable, Sendable {
  public var user: String
  public var password: String

  public init(user: String, password: String) {
    self.user = user
    self.password = password
  }
}

public struct AgentFreezeDocument: Codable, Hashable, Sendable {
  public var frozen: Bool
  /// How many were frozen or thawed by this.
  public var fileSystems: Int?

  public init(frozen: Bool, fileSystems: Int? = nil) {
    self.frozen = frozen
    self.fileSystems = fileSystems
  }
}

/// A program to run in a guest.
public struct AgentProgramDocument: Codable, Hashable, Sendable {
  /// Its name, then its arguments. No shell looks at them.
  public var command: [String]
  /// For its standard input.
  public var input: Data?
  /// How long to wait for its end.
  public var seconds: Int?

  public init(command: [String], input: Data? = nil, seconds: Int? = nil) {
    self.command = command
    self.input = input
    self.seconds = seconds
  }
}

/// What became of it.
public struct AgentExecutionDocument: Codable, Hashable, Sendable {
  /// Its number in the guest.
  public var process: Int
  public var ended: Bool
  public var status: Int?
  /// What ended it, if a signal did.
  public var signal: Int?
  /// What it wrote, once it has ended.
  public var output: Data
  public var errors: Data
  /// The agent kept no more.
  public var truncated: Bool

  public init(
    process: Int, ended: Bool, status: Int?, signal: Int?, output: Data, errors: Data,
    truncated: Bool
  ) {
    self.process = process
    self.ended = ended
    self.status = status
    self.signal = signal
    self.output = output
    self.errors = errors
    self.truncated = truncated
  }
}
