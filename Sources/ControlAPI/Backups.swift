/// One backup of a desktop as the API shows it.
public struct BackupDocument: Codable, Hashable, Sendable {
  public var id: String
  public var desktop: String
  public var pool: String?
  public var owner: String?
  public var created: WireTime
  /// Of all its files, with what other backups have, too.
  public var bytes: UInt64
  /// Whether the desktop goes on where it was; otherwise its guest boots.
  public var memory: Bool

  public init(
    id: String, desktop: String, pool: String?, owner: String?, created: WireTime, bytes: UInt64,
    memory: Bool
  ) {
    self.id = id
    self.desktop = desktop
    self.pool = pool
    self.owner = owner
    self.created = created
    self.bytes = bytes
    self.memory = memory
  }
}

/// Work with backups.
public struct BackupJobDocument: Codable, Hashable, Sendable {
  /// What became of one desktop or one backup.
  public struct Result: Codable, Hashable, Sendable {
    /// Or the template, such as `office@3`.
    public var desktop: String
    public var backup: String?
    /// What was written for it, in bytes.
    public var addedBytes: UInt64?
    public var problem: String?

    public init(desktop: String, backup: String?, addedBytes: UInt64?, problem: String?) {
      self.desktop = desktop
      self.backup = backup
      self.addedBytes = addedBytes
      self.problem = problem
    }
  }

  public var id: String
  /// `run`, `verify`, `restore`, `prune`, `export` or `import`.
  public var kind: String
  /// `working`, `ready` or `failed`.
  public var state: String
  public var begun: WireTime
  /// What is being done, and how much of it is, in percent, where that is known.
  public var step: String?
  public var percent: Int?
  /// Why it failed, and what kind of error that is.
  public var problem: String?
  public var problemKind: ErrorDocument.Kind?
  public var results: [Result]
  /// What people should know.
  public var notes: [String]

  public init(
    id: String, kind: String, state: String, begun: WireTime, results: [Result], notes: [String]
  ) {
    self.id = id
    self.kind = kind
    self.state = state
    self.begun = begun
    self.results = results
    self.notes = notes
  }
}

/// What is asked of backups. Which of the values are wanted, and which are allowed, depends on
/// the request.
public struct BackupRequest: Codable, Hashable, Sendable {
  /// The directory of backups: an absolute path on the host of `carreld`.
  public var repository: String?
  /// What opens it.
  public var key: String?
  /// A desktop or a pool; of an export, also a template such as `office@3`.
  public var subject: String?
  /// Of a pool, also desktops that are nobody's.
  public var all: Bool?
  public var backup: String?
  /// What a restored desktop is to be.
  public var desktop: String?
  public var pool: String?
  public var owner: String?
  /// Which backups of a desktop stay: so many, and those that are younger (`30d`).
  public var keepLast: Int?
  public var keepWithin: String?
  /// Of an archive: an absolute path on the host of `carreld`.
  public var file: String?

  public init() {}
}
