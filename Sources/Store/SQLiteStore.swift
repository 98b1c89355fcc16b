import Brokering
import CarrelBase
import Foundation
import GRDB

/// The embedded store: one SQLite file in WAL mode.
///
/// Failpoints, for every commit in this order: `store.commit.begin`,
/// `store.commit.write` before each write, `store.commit.before` and
/// `store.commit.after` around the commit itself.
public final class SQLiteStore: KeyValueStore {
  /// Deletions remembered for watchers; older ones are compacted.
  static let deletionsKept = 10_000

  private let pool: DatabasePool
  private let path: String
  private let failpoints: Failpoints
  private let watchers = Watchers()
  private let now: @Sendable () -> Double

  /// Opens or creates the database at `path`. Throws `corrupt`, `newer`,
  /// `unavailable` or `full`, and leaves what is there alone.
  public init(
    path: String, failpoints: Failpoints = .none,
    now: @escaping @Sendable () -> Double = { Date().timeIntervalSince1970 }
  ) throws(StoreError) {
    self.path = path
    self.failpoints = failpoints
    self.now = now
    pool = try DatabaseFile.open(path)
  }

  /// Ends all watches and closes the file. Later calls throw.
  public func close() {
    watchers.finish()
    // So that the one file is all there is to back up.
    _ = try? pool.writeWithoutTransaction { try $0.checkpoint(.truncate) }
    try? pool.close()
  }

  // MARK: Reading

  public func get(_ key: String) async throws(StoreError) -> StoredValue? {
    try await expireLeases()
    return try await read { database in
      try Row.fetchOne(
        database, sql: "SELECT key, bytes, revision FROM record WHERE key = ?", arguments: [key]
      ).map(StoredValue.init(row:))
    }
  }

  public func list(
    prefix: String
  ) async throws(StoreError) -> (values: [StoredValue], revision: Int64) {
    try await expireLeases()
    return try await read { database in
      (try Self.values(database, prefix: prefix, after: 0), try Self.revision(database))
    }
  }

  // MARK: Writing

  @discardableResult
  public func commit(_ transaction: StoreTransaction) async throws(StoreError) -> Int64 {
    try await expireLeases()
    return try await write { database in
      for comparison in transaction.comparisons {
        let revision =
          try Int64.fetchOne(
            database, sql: "SELECT revision FROM record WHERE key = ?",
            arguments: [comparison.key]) ?? 0
        guard revision == comparison.revision else {
          throw StoreError(
            .conflict, "'\(comparison.key)' was changed by somebody else: read it again")
        }
      }
      return transaction.writes
    }
  }

  public func grantLease(seconds: Int) async throws(StoreError) -> LeaseID {
    let expires = now() + Double(seconds)
    return try await attempt {
      try await pool.write { database in
        try database.execute(
          sql: "INSERT INTO lease (seconds, expires) VALUES (?, ?)", arguments: [seconds, expires])
        return LeaseID(database.lastInsertedRowID)
      }
    }
  }

  public func keepAlive(_ lease: LeaseID) async throws(StoreError) {
    try await expireLeases()
    let now = now()
    let found = try await attempt {
      try await pool.write { database in
        try database.execute(
          sql: "UPDATE lease SET expires = ? + seconds WHERE id = ?",
          arguments: [now, lease.value])
        return database.changesCount
      }
    }
    guard found == 1 else {
      throw StoreError(.notFound, "lease \(lease.value) has ended: ask for another")
    }
  }

  public func revoke(_ lease: LeaseID) async throws(StoreError) {
    try await end([lease.value])
  }

  /// Deletes what hangs on leases whose time is over. Called by every operation;
  /// a service that waits for expiry calls it from time to time.
  public func expireLeases() async throws(StoreError) {
    let now = now()
    let over = try await read { database in
      try Int64.fetchAll(database, sql: "SELECT id FROM lease WHERE expires <= ?", arguments: [now])
    }
    if !over.isEmpty { try await end(over) }
  }

  private func end(_ leases: [Int64]) async throws(StoreError) {
    try await write { database in
      var keys: [String] = []
      for lease in leases {
        keys += try String.fetchAll(
          database, sql: "SELECT key FROM record WHERE lease = ? ORDER BY key", arguments: [lease])
        try database.execute(sql: "DELETE FROM lease WHERE id = ?", arguments: [lease])
      }
      return keys.map { .delete(key: $0) }
    }
  }

  // MARK: Watching

  public func watch(
    prefix: String, after revision: Int64
  ) async throws(StoreError) -> AsyncStream<StoreChange> {
    let (stream, continuation) = AsyncStream.makeStream(of: StoreChange.self)
    // Inside a write, so that no commit falls between the past and the future.
    try await attempt {
      try await pool.write { [watchers] database in
        let compacted = try Int64.fetchOne(database, sql: "SELECT compacted FROM clock") ?? 0
        guard revision >= compacted else {
          throw StoreError(
            .conflict, "changes before revision \(compacted) are forgotten: list, then watch")
        }
        for change in try Self.changes(database, prefix: prefix, after: revision) {
          continuation.yield(change)
        }
        watchers.add(prefix: prefix, continuation)
      }
    }
    return stream
  }

  // MARK: Shells around GRDB

  private func read<Result: Sendable>(
    _ body: @escaping @Sendable (Database) throws -> Result
  ) async throws(StoreError) -> Result {
    try await attempt { try await pool.read(body) }
  }

  /// Runs `body` and its writes as one transaction under the next revision.
  @discardableResult
  private func write(
    _ body: @escaping @Sendable (Database) throws -> [StoreTransaction.Write]
  ) async throws(StoreError) -> Int64 {
    let failpoints = self.failpoints
    let watchers = self.watchers
    let committed = try await attempt {
      try await pool.writeWithoutTransaction { database in
        failpoints.hit("store.commit.begin")
        var changes: [StoreChange] = []
        var revision: Int64 = 0
        try database.inTransaction(.immediate) {
          let writes = try body(database)
          revision = try Self.nextRevision(database, changing: !writes.isEmpty)
          for write in writes {
            failpoints.hit("store.commit.write")
            changes.append(try Self.apply(write, database, revision: revision))
          }
          failpoints.hit("store.commit.before")
          return .commit
        }
        failpoints.hit("store.commit.after")
        // Still on the writer's queue: watchers see commits in order.
        watchers.publish(changes)
        return revision
      }
    }
    return committed
  }

  private func attempt<Result: Sendable>(
    _ body: () async throws -> Result
  ) async throws(StoreError) -> Result {
    do {
      return try await body()
    } catch {
      throw StoreError(describing: error, path: path)
    }
  }
}

/// The SQL.
extension SQLiteStore {
  private static func revision(_ database: Database) throws -> Int64 {
    try Int64.fetchOne(database, sql: "SELECT revision FROM clock") ?? 0
  }

  private static func nextRevision(_ database: Database, changing: Bool) throws -> Int64 {
    if changing { try database.execute(sql: "UPDATE clock SET revision = revision + 1") }
    return try revision(database)
  }

  private static func apply(
    _ write: StoreTransaction.Write, _ database: Database, revision: Int64
  ) throws -> StoreChange {
    switch write {
    case .put(let key, let bytes, let lease):
      if let lease {
        let known = try Int.fetchOne(
          database, sql: "SELECT 1 FROM lease WHERE id = ?", arguments: [lease.value])
        guard known == 1 else {
          throw StoreError(.notFound, "lease \(lease.value) has ended: ask for another")
        }
      }
      try database.execute(
        sql: "INSERT OR REPLACE INTO record (key, bytes, revision, lease) VALUES (?, ?, ?, ?)",
        arguments: [key, Data(bytes), revision, lease?.value])
      try database.execute(sql: "DELETE FROM deletion WHERE key = ?", arguments: [key])
      return StoreChange(key: key, bytes: bytes, revision: revision)
    case .delete(let key):
      try database.execute(sql: "DELETE FROM record WHERE key = ?", arguments: [key])
      try database.execute(
        sql: "INSERT OR REPLACE INTO deletion (key, revision) VALUES (?, ?)",
        arguments: [key, revision])
      try compact(database)
      return StoreChange(key: key, bytes: nil, revision: revision)
    }
  }

  private static func compact(_ database: Database) throws {
    let count = try Int.fetchOne(database, sql: "SELECT count(*) FROM deletion") ?? 0
    guard count > deletionsKept else { return }
    // Half at a time, so that this is rare.
    try database.execute(
      sql: """
        UPDATE clock SET compacted = (
          SELECT revision FROM deletion ORDER BY revision DESC LIMIT 1 OFFSET ?);
        DELETE FROM deletion WHERE revision <= (SELECT compacted FROM clock)
        """, arguments: [deletionsKept / 2])
  }

  fileprivate static func values(
    _ database: Database, prefix: String, after revision: Int64
  ) throws -> [StoredValue] {
    try Row.fetchAll(
      database,
      sql: """
        SELECT key, bytes, revision FROM record
        WHERE substr(key, 1, length(?1)) = ?1 AND revision > ?2 ORDER BY key
        """, arguments: [prefix, revision]
    ).map(StoredValue.init(row:))
  }

  private static func changes(
    _ database: Database, prefix: String, after revision: Int64
  ) throws -> [StoreChange] {
    let values = try values(database, prefix: prefix, after: revision).map {
      StoreChange(key: $0.key, bytes: $0.bytes, revision: $0.revision)
    }
    let deletions = try Row.fetchAll(
      database,
      sql: """
        SELECT key, revision FROM deletion
        WHERE substr(key, 1, length(?1)) = ?1 AND revision > ?2
        """, arguments: [prefix, revision]
    ).map { StoreChange(key: $0["key"], bytes: nil, revision: $0["revision"]) }
    return (values + deletions).sorted { ($0.revision, $0.key) < ($1.revision, $1.key) }
  }
}

extension StoredValue {
  fileprivate init(row: Row) {
    let data: Data = row["bytes"]
    self.init(key: row["key"], bytes: [UInt8](data), revision: row["revision"])
  }
}
