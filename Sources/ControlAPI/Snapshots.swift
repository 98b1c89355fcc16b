/// A snapshot of a desktop as the API shows it.
public struct SnapshotDocument: Codable, Hashable, Sendable {
  public var name: String
  /// `making`, `ready` or `failed`.
  public var state: String
  /// How far it is, where that is known.
  public var percent: Int?
  /// Why it failed.
  public var problem: String?
  /// The snapshot that the desktop had come from when it was taken.
  public var parent: String?
  public var created: WireTime
  /// Whether the desktop goes on where it was; otherwise its guest boots.
  public var memory: Bool
  /// Whether the guest's agent had frozen its file systems.
  public var quiesced: Bool
  /// What its memory takes on the host, in bytes.
  public var memoryBytes: UInt64
  /// Whether its memory is only what differs from an earlier snapshot.
  public var differential: Bool
  /// How long the guest stood, in microseconds.
  public var pauseMicroseconds: Int?
  /// Whether the desktop came from it last.
  public var current: Bool

  public init(
    name: String, state: String, parent: String?, created: WireTime, memory: Bool,
    quiesced: Bool, memoryBytes: UInt64, differential: Bool, pauseMicroseconds: Int?,
    current: Bool
  ) {
    self.name = name
    self.state = state
    self.parent = parent
    self.created = created
    self.memory = memory
    self.quiesced = quiesced
    self.memoryBytes = memoryBytes
    self.differential = differential
    self.pauseMicroseconds = pauseMicroseconds
    self.current = current
  }
}

/// A snapshot to be taken.
public struct SnapshotCreation: Codable, Hashable, Sendable {
  public var name: String
  /// Whether the guest's agent freezes file systems meanwhile, if it answers; so by default.
  public var quiesce: Bool?

  public init(name: String) { self.name = name }
}
