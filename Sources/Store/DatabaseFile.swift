import Brokering
import CarrelBase
import Foundation
import GRDB

/// Opens the database file: ours, intact, of a version we know, in WAL mode.
enum DatabaseFile {
  /// "Carl", in SQLite's application_id.
  static let applicationID: Int32 = 0x4361_726C
  static let version = 1

  static func open(_ path: String) throws(StoreError) -> DatabasePool {
    do {
      try create(path)
      var configuration = Configuration()
      configuration.label = "store"
      configuration.busyMode = .timeout(5)
      configuration.maximumReaderCount = 2
      configuration.prepareDatabase { database in
        // A decision must survive power loss before it is acted upon.
        try database.execute(sql: "PRAGMA synchronous = FULL")
      }
      let pool = try DatabasePool(path: path, configuration: configuration)
      try pool.write { database in
        try check(database, path: path)
        try createTables(database)
      }
      return pool
    } catch {
      throw StoreError(describing: error, path: path)
    }
  }

  /// Creates the file readable by its owner alone: SQLite would use the umask.
  private static func create(_ path: String) throws(StoreError) {
    let descriptor = Foundation.open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else {
      let text = String(cString: strerror(errno))
      throw StoreError(
        errno == ENOSPC ? .full : .unavailable,
        "the database \(path) cannot be opened (\(text)): check that the state directory exists "
          + "and belongs to the user carreld runs as")
    }
    close(descriptor)
  }

  private static func check(_ database: Database, path: String) throws {
    let tables =
      try Int.fetchOne(database, sql: "SELECT count(*) FROM sqlite_schema") ?? 0
    let application = try Int32.fetchOne(database, sql: "PRAGMA application_id") ?? 0
    guard tables == 0 || application == applicationID else {
      throw StoreError(
        .corrupt,
        "\(path) is a database of another program: move it away, or configure another "
          + "state directory")
    }
    let found = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
    guard found <= version else {
      throw StoreError(
        .newer,
        "the database \(path) has format \(found) and this Carrel knows \(version): use "
          + "the version of Carrel that wrote it, or restore an older backup")
    }
    let verdict = try String.fetchOne(database, sql: "PRAGMA quick_check(1)") ?? "no answer"
    guard verdict == "ok" else {
      throw StoreError(
        .corrupt, "the database \(path) is damaged (\(verdict)): restore a backup")
    }
  }

  private static func createTables(_ database: Database) throws {
    try database.execute(
      sql: """
        PRAGMA application_id = \(applicationID);
        PRAGMA user_version = \(version);
        CREATE TABLE IF NOT EXISTS record (
          key TEXT PRIMARY KEY NOT NULL, bytes BLOB NOT NULL, revision INTEGER NOT NULL,
          lease INTEGER) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS deletion (
          key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS lease (
          id INTEGER PRIMARY KEY AUTOINCREMENT, seconds INTEGER NOT NULL, expires REAL NOT NULL);
        CREATE TABLE IF NOT EXISTS clock (
          only INTEGER PRIMARY KEY CHECK (only = 0), revision INTEGER NOT NULL,
          compacted INTEGER NOT NULL);
        INSERT OR IGNORE INTO clock VALUES (0, 0, 0);
        """)
  }
}

extension StoreError {
  /// What SQLite said, in our words.
  init(describing error: any Error, path: String) {
    if let error = error as? StoreError {
      self = error
      return
    }
    let code = (error as? DatabaseError)?.resultCode
    switch code {
    case .SQLITE_FULL:
      self.init(
        .full, "the disk of \(path) is full and nothing was written: make room there",
        cause: error)
    case .SQLITE_CORRUPT, .SQLITE_NOTADB:
      self.init(
        .corrupt,
        "\(path) is not a usable database: restore a backup, or move it away to begin "
          + "with an empty one", cause: error)
    case .SQLITE_BUSY, .SQLITE_LOCKED:
      self.init(
        .unavailable, "the database \(path) is locked by another process: end that one",
        cause: error)
    case .SQLITE_CANTOPEN, .SQLITE_PERM, .SQLITE_READONLY, .SQLITE_AUTH:
      self.init(
        .unavailable,
        "the database \(path) cannot be written: check owner and permissions of it "
          + "and of its directory", cause: error)
    default:
      self.init(
        Self.isDiskFull(path) ? .full : .failed, "the database \(path) could not be used",
        cause: error)
    }
  }

  /// SQLite reports a WAL that cannot grow as an I/O error.
  private static func isDiskFull(_ path: String) -> Bool {
    var status = statvfs()
    // SAFETY: statvfs fills the structure given or fails.
    guard statvfs(path, &status) == 0 else { return false }
    return status.f_bavail == 0
  }
}
