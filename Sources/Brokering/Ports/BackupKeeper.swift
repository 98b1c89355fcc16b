/// Keeps copies of desktops elsewhere, and makes desktops of them again. Implemented by the
/// host; called by the control API.
public protocol BackupKeeper: Sendable {
  /// What is under way, and what became of the last, oldest first.
  func jobs() async -> [BackupJob]

  /// Ends work that is under way soon.
  /// - Throws: kind `conflict` for work that is done.
  func cancel(_ job: BackupJobID) async throws(BrokerError)

  /// All backups of the repository, oldest first.
  /// - Throws: kind `invalid` for a key that does not open it, `notFound` for none.
  func backups(in repository: BackupRepository) async throws(BrokerError) -> [Backup]

  /// Begins something; `jobs` tells how it goes on.
  /// - Throws: kind `conflict` while other work is in its way.
  func begin(
    _ work: BackupWork, for desk: any BackupDesk
  ) async throws(BrokerError) -> BackupJob
}

/// What a keeper asks of the broker while it works.
public protocol BackupDesk: Sendable {
  /// A desktop as it is now.
  /// - Throws: when there is nothing of it to keep.
  func subject(_ desktop: DesktopID) async throws(BrokerError) -> BackupSubject

  /// Decides what a backup becomes. Nobody else gets that name until `settle` or `leave`.
  func place(
    _ contents: BackupContents, _ wish: RestoreWish
  ) async throws(BrokerError) -> RestorePlace

  /// The desktop's files are in their place: from now on it exists.
  func settle(_ place: RestorePlace, hasMemory: Bool) async throws(BrokerError)

  /// How its owner gets to a desktop that was settled; `nil` where no login leads to it.
  func way(to desktop: DesktopID) async -> DesktopWay?

  /// It came to nothing.
  func leave(_ place: RestorePlace) async

  /// What desktops of a pool are started as; `nil` without such a pool.
  func machine(of pool: PoolName) async -> TemplateMachine?
}

/// A directory of backups on the host.
public struct BackupRepository: Hashable, Sendable {
  public static let longestKey = 1024

  public let path: String
  /// `nil` for the word that everybody knows.
  public let key: [UInt8]?

  public init(path: String, key: [UInt8]?) throws(BrokerError) {
    guard path.hasPrefix("/"), !path.contains("\0"), path.utf8.count < 4096 else {
      throw BrokerError(
        .invalid, "'\(path)' is not an absolute path: give the whole path on carreld's host")
    }
    if let key {
      guard (1...Self.longestKey).contains(key.count),
        !key.contains(where: { [0, 10, 13].contains($0) })
      else {
        throw BrokerError(
          .invalid, "the key is empty, longer than \(Self.longestKey) bytes or not one line")
      }
    }
    self.path = path
    self.key = key
  }
}

/// Which backups are meant.
public enum BackupScope: Hashable, Sendable {
  case desktop(DesktopID)
  case pool(PoolName)
  case all
}

public enum BackupWork: Sendable {
  case run([DesktopID], BackupRepository)
  case verify(BackupRepository)
  case restore(backup: String, RestoreWish, BackupRepository)
  case prune(BackupScope, Retention, BackupRepository)
  case export(DesktopID, file: String)
  /// The newest generation, if none is named.
  case exportTemplate(PoolName, generation: UInt64?, file: String)
  /// Of a desktop or a template: the file says which.
  case importFile(String, RestoreWish)
}

/// Which backups of a desktop stay.
public struct Retention: Hashable, Sendable {
  /// The newest so many.
  public let last: Int?
  /// Those younger than that, before the newest: `30d`, `1y2m`.
  public let within: String?

  public init(last: Int?, within: String?) throws(BrokerError) {
    guard last != nil || within != nil else {
      throw BrokerError(.invalid, "say what is to stay: --keep-last, --keep-within or both")
    }
    if let last, !(1...100_000).contains(last) {
      throw BrokerError(.invalid, "--keep-last \(last) cannot be: choose 1 to 100000")
    }
    if let within, within.wholeMatch(of: /([0-9]{1,5}[ymdh])+/) == nil {
      throw BrokerError(
        .invalid, "'\(within)' is no span of time: give years, months, days or hours, as in 30d")
    }
    self.last = last
    self.within = within
  }
}

/// One desktop, as it is kept.
public struct BackupSubject: Hashable, Sendable {
  public let desktop: DesktopID
  public let owner: UserName?
  public let pool: Pool

  public init(desktop: DesktopID, owner: UserName?, pool: Pool) {
    self.desktop = desktop
    self.owner = owner
    self.pool = pool
  }
}

/// What a backup is of.
public struct BackupContents: Hashable, Sendable {
  public let desktop: DesktopID
  public let owner: UserName?
  public let hasDisk: Bool

  public init(desktop: DesktopID, owner: UserName?, hasDisk: Bool) {
    self.desktop = desktop
    self.owner = owner
    self.hasDisk = hasDisk
  }
}

/// What a restored desktop is to be; what is left out is as it was, or free.
public struct RestoreWish: Hashable, Sendable {
  public var desktop: DesktopID?
  public var pool: PoolName?
  public var owner: UserName?

  public init(desktop: DesktopID? = nil, pool: PoolName? = nil, owner: UserName? = nil) {
    self.desktop = desktop
    self.pool = pool
    self.owner = owner
  }
}

/// What it becomes.
public struct RestorePlace: Hashable, Sendable {
  public let pool: Pool
  public let number: UInt64
  public let owner: UserName

  public var desktop: DesktopID { DesktopID(pool: pool.name, number: number) }

  public init(pool: Pool, number: UInt64, owner: UserName) {
    self.pool = pool
    self.number = number
    self.owner = owner
  }
}

/// One backup in a repository.
public struct Backup: Hashable, Sendable {
  public let id: String
  public let desktop: DesktopID
  public let pool: PoolName?
  public let owner: UserName?
  public let created: Timestamp
  /// Of all its files, with what others share.
  public let bytes: UInt64
  public let hasMemory: Bool

  public init(
    id: String, desktop: DesktopID, pool: PoolName?, owner: UserName?, created: Timestamp,
    bytes: UInt64, hasMemory: Bool
  ) {
    self.id = id
    self.desktop = desktop
    self.pool = pool
    self.owner = owner
    self.created = created
    self.bytes = bytes
    self.hasMemory = hasMemory
  }
}

/// One piece of work with backups.
public struct BackupJobID: Identifier {
  public static var noun: String { "job" }
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
}

public struct BackupJob: Hashable, Sendable {
  public enum Kind: String, Hashable, Sendable {
    case run, verify, restore, prune, export
    case importFile = "import"
  }

  public enum State: Hashable, Sendable {
    /// `percent` where it is known.
    case working(step: String, percent: Int?)
    case ready
    case failed(problem: String)
  }

  /// What became of one desktop or one backup.
  public struct Result: Hashable, Sendable {
    /// Or the template, such as `office@3`.
    public let desktop: DesktopID
    public var backup: String?
    /// What the repository grew by.
    public var addedBytes: UInt64?
    public var problem: String?

    public init(
      desktop: DesktopID, backup: String? = nil, addedBytes: UInt64? = nil, problem: String? = nil
    ) {
      self.desktop = desktop
      self.backup = backup
      self.addedBytes = addedBytes
      self.problem = problem
    }
  }

  public let id: BackupJobID
  public let kind: Kind
  public let begun: Timestamp
  public var state: State
  public var results: [Result] = []
  /// What people should know.
  public var notes: [String] = []
  /// What kind of error it failed with.
  public var problemKind: BrokerError.Kind?

  public init(id: BackupJobID, kind: Kind, begun: Timestamp, state: State) {
    self.id = id
    self.kind = kind
    self.begun = begun
    self.state = state
  }
}
