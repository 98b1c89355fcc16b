import CarrelBase

/// Where the broker's records live: SQLite in `carreld`, etcd for several hosts.
///
/// Values are opaque bytes under keys such as `desktop/office-3`. The store has
/// one revision that each successful commit raises by one; every value carries
/// the revision that wrote it. All methods may be called from any task; commits
/// are serialised by the store.
public protocol KeyValueStore: Sendable {
  /// The value under `key`, or `nil`.
  func get(_ key: String) async throws(StoreError) -> StoredValue?

  /// Every value whose key begins with `prefix`, in key order, and the revision
  /// at which all of them were read (one snapshot).
  func list(prefix: String) async throws(StoreError) -> (values: [StoredValue], revision: Int64)

  /// Does all of `transaction` or nothing. When it returns the writes are on
  /// disk: they survive `kill -9` and power loss. Throws `conflict` when a
  /// comparison does not hold, `full` when the disk is.
  @discardableResult
  func commit(_ transaction: StoreTransaction) async throws(StoreError) -> Int64

  /// Every change under `prefix` after `revision`, in order (of the past, the latest
  /// of each key), then those to come. Throws `conflict` when `revision` is so old
  /// that deletions since are forgotten. Ends when the task that reads it is cancelled or the store closes.
  func watch(prefix: String, after revision: Int64) async throws(StoreError)
    -> AsyncStream<StoreChange>

  /// A lease that lives `seconds` from now unless kept alive. Keys bound to it
  /// are deleted, as one commit that watchers see, when it ends.
  func grantLease(seconds: Int) async throws(StoreError) -> LeaseID

  /// Starts the lease's time again. Throws `notFound` when it has ended.
  func keepAlive(_ lease: LeaseID) async throws(StoreError)

  /// Ends the lease now. Ending it twice is no error.
  func revoke(_ lease: LeaseID) async throws(StoreError)
}

/// One value and where it stands.
public struct StoredValue: Hashable, Sendable {
  public let key: String
  public let bytes: [UInt8]
  /// The commit that last wrote it.
  public let revision: Int64

  public init(key: String, bytes: [UInt8], revision: Int64) {
    self.key = key
    self.bytes = bytes
    self.revision = revision
  }
}

/// A value's life time; see `KeyValueStore.grantLease`.
public struct LeaseID: Hashable, Sendable {
  public let value: Int64
  public init(_ value: Int64) { self.value = value }
}

/// Comparisons that must all hold, then writes that all happen.
public struct StoreTransaction: Sendable {
  /// The key was last written at `revision`; 0 says that it does not exist.
  public struct Comparison: Hashable, Sendable {
    public let key: String
    public let revision: Int64

    public init(key: String, revision: Int64) {
      self.key = key
      self.revision = revision
    }
  }

  public enum Write: Hashable, Sendable {
    case put(key: String, bytes: [UInt8], lease: LeaseID?)
    case delete(key: String)
  }

  public var comparisons: [Comparison]
  public var writes: [Write]

  public init(comparisons: [Comparison] = [], writes: [Write] = []) {
    self.comparisons = comparisons
    self.writes = writes
  }
}

/// What a watch reports: a value, or a key that is gone (`bytes` is `nil`).
public struct StoreChange: Hashable, Sendable {
  public let key: String
  public let bytes: [UInt8]?
  public let revision: Int64

  public init(key: String, bytes: [UInt8]?, revision: Int64) {
    self.key = key
    self.bytes = bytes
    self.revision = revision
  }
}

/// Why the store did not do it.
public struct StoreError: CarrelError {
  public enum Kind: String, Hashable, Sendable {
    /// A comparison failed: somebody else wrote first.
    case conflict
    /// The disk is full. Nothing was written.
    case full
    /// The file is no database, or damaged.
    case corrupt
    /// A newer Carrel wrote it.
    case newer
    /// In use by another process, or not permitted.
    case unavailable
    case notFound
    /// Anything else the disk or the database said.
    case failed
  }

  public let kind: Kind
  public let context: String
  public let cause: (any Error)?

  public init(_ kind: Kind, _ context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }
}

/// Turns records into the bytes of a value and back. Pure; implemented beside the store.
public protocol RecordCoding: Sendable {
  func encode<Record: Encodable>(_ record: Record) throws -> [UInt8]
  func decode<Record: Decodable>(_ type: Record.Type, from bytes: [UInt8]) throws -> Record
}
