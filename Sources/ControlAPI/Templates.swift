/// One generation of a pool's template as the API shows it.
public struct TemplateDocument: Codable, Hashable, Sendable {
  public var pool: String
  public var generation: UInt64
  /// `making`, `ready`, `stale` or `failed`.
  public var state: String
  /// What is being done.
  public var step: String?
  /// Why it failed, or serves no more.
  public var problem: String?
  /// Path of the image that it was started from.
  public var image: String?
  /// What was seen when it was taken.
  public var sign: String?
  /// Desktops that were cloned from it and are there yet.
  public var clones: [String]
  /// What its memory and its disk take on the host, in bytes.
  public var memoryBytes: UInt64
  public var diskBytes: UInt64
  public var created: WireTime

  public init(
    pool: String, generation: UInt64, state: String, step: String? = nil, problem: String? = nil,
    image: String?, sign: String?, clones: [String], memoryBytes: UInt64, diskBytes: UInt64,
    created: WireTime
  ) {
    self.pool = pool
    self.generation = generation
    self.state = state
    self.step = step
    self.problem = problem
    self.image = image
    self.sign = sign
    self.clones = clones
    self.memoryBytes = memoryBytes
    self.diskBytes = diskBytes
    self.created = created
  }
}

/// A template to be made.
public struct TemplateCreation: Codable, Hashable, Sendable {
  public var pool: String
  /// `automatic`, `agent`, `screen` or `marker`; automatic by default.
  public var ready: String?
  /// Path of a file in the guest, for `marker`.
  public var marker: String?
  public var settleSeconds: Int?
  public var limitSeconds: Int?

  public init(pool: String) { self.pool = pool }
}
