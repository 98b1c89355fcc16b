import Brokering
import GRDB
import Store
import Synchronization
import TestSupport
import Testing

@Suite("The SQLite store")
struct StoreTests {
  private let directory: TemporaryDirectory
  private var path: String { directory.path("carrel.db") }

  init() throws { directory = try TemporaryDirectory() }

  private func open(failpoints: Failpoints = .none) throws -> SQLiteStore {
    try SQLiteStore(path: path, failpoints: failpoints)
  }

  private func put(_ key: String, _ text: String, lease: LeaseID? = nil) -> StoreTransaction.Write {
    .put(key: key, bytes: [UInt8](text.utf8), lease: lease)
  }

  @Test("what was committed is there after closing and opening")
  func durable() async throws {
    let first = try open()
    let revision = try await first.commit(.init(writes: [put("a/1", "x"), put("a/2", "y")]))
    first.close()
    let second = try open()
    let values = try await second.list(prefix: "a/")
    #expect(values.revision == revision)
    #expect(values.values.map(\.key) == ["a/1", "a/2"])
    #expect(try await second.get("a/2")?.bytes == [UInt8]("y".utf8))
    #expect(try await second.get("a/2")?.revision == revision)
    #expect(try await second.get("b") == nil)
  }

  @Test("a prefix is taken literally, whatever wildcards it holds")
  func prefixes() async throws {
    let store = try open()
    try await store.commit(
      .init(writes: [put("a_b/1", "x"), put("axb/1", "y"), put("a%b", "z"), put("A_b/2", "w")]))
    #expect(try await store.list(prefix: "a_b").values.map(\.key) == ["a_b/1"])
    #expect(try await store.list(prefix: "a%").values.map(\.key) == ["a%b"])
    #expect(try await store.list(prefix: "").values.count == 4)
  }

  @Test("a transaction whose comparison fails writes nothing")
  func compare() async throws {
    let store = try open()
    let first = try await store.commit(
      .init(comparisons: [.init(key: "k", revision: 0)], writes: [put("k", "1")]))
    let stale = StoreTransaction(
      comparisons: [.init(key: "k", revision: 0)], writes: [put("k", "2"), put("other", "3")])
    let error = await #expect(throws: StoreError.self) { try await store.commit(stale) }
    #expect(error?.kind == .conflict)
    #expect(try await store.get("other") == nil)
    #expect(try await store.get("k")?.revision == first)
    let second = try await store.commit(
      .init(comparisons: [.init(key: "k", revision: first)], writes: [.delete(key: "k")]))
    #expect(second == first + 1)
    #expect(try await store.get("k") == nil)
  }

  @Test("commits that race are all done, one after the other")
  func concurrent() async throws {
    let store = try open()
    let revisions = try await withThrowingTaskGroup(of: Int64.self) { group in
      for index in 0..<40 {
        group.addTask { try await store.commit(.init(writes: [self.put("k/\(index)", "x")])) }
      }
      return try await group.reduce(into: Set<Int64>()) { $0.insert($1) }
    }
    #expect(revisions == Set(1...40))
    #expect(try await store.list(prefix: "k/").values.count == 40)
  }

  @Test("a watch tells the past since a revision, then what comes, in order")
  func watch() async throws {
    let store = try open()
    let first = try await store.commit(.init(writes: [put("a/1", "old"), put("b/1", "old")]))
    try await store.commit(.init(writes: [put("a/2", "new"), .delete(key: "a/1")]))
    var changes = try await store.watch(prefix: "a/", after: first).makeAsyncIterator()
    #expect(await changes.next()?.key == "a/1")
    #expect(await changes.next()?.key == "a/2")
    try await store.commit(.init(writes: [put("b/2", "other"), put("a/3", "newest")]))
    let last = await changes.next()
    #expect(last?.key == "a/3")
    #expect(last?.bytes == [UInt8]("newest".utf8))
    store.close()
    #expect(await changes.next() == nil)
  }

  @Test("what hangs on a lease goes with it, and watchers see it go")
  func leases() async throws {
    let now = Mutex(1000.0)
    let store = try SQLiteStore(path: path, now: { now.withLock { $0 } })
    let lease = try await store.grantLease(seconds: 10)
    let revision = try await store.commit(
      .init(writes: [put("host/a", "alive", lease: lease), put("host/b", "for ever")]))
    now.withLock { $0 += 8 }
    try await store.keepAlive(lease)
    now.withLock { $0 += 8 }
    #expect(try await store.get("host/a") != nil)
    var changes = try await store.watch(prefix: "host/", after: revision).makeAsyncIterator()
    now.withLock { $0 += 3 }
    #expect(try await store.get("host/a") == nil)
    let change = await changes.next()
    #expect(change?.key == "host/a")
    #expect(change?.bytes == nil)
    #expect(try await store.get("host/b") != nil)
    let error = await #expect(throws: StoreError.self) { try await store.keepAlive(lease) }
    #expect(error?.kind == .notFound)
    let late = StoreTransaction(writes: [put("host/c", "x", lease: lease)])
    await #expect(throws: StoreError.self) { try await store.commit(late) }
  }

  @Test("failpoints are passed at every write and around every commit")
  func failpoints() async throws {
    let passed = Mutex<[String]>([])
    let store = try open(failpoints: Failpoints { name in passed.withLock { $0.append(name) } })
    try await store.commit(.init(writes: [put("a", "1"), put("b", "2")]))
    #expect(
      passed.withLock { $0 } == [
        "store.commit.begin", "store.commit.write", "store.commit.write", "store.commit.before",
        "store.commit.after",
      ])
  }

  @Test("nobody else may read the file")
  func permissions() async throws {
    let store = try open()
    try await store.commit(.init(writes: [put("a", "1")]))
    let (status, output) = try directory.run("stat -c %a carrel.db carrel.db-wal")
    #expect(status == 0)
    #expect(output.split(separator: "\n") == ["600", "600"])
  }
}

@Suite("Databases that cannot be used")
struct BadDatabaseTests {
  private let directory: TemporaryDirectory
  private var path: String { directory.path("carrel.db") }

  init() throws { directory = try TemporaryDirectory() }

  private func refusal() -> StoreError? {
    #expect(throws: StoreError.self) { try SQLiteStore(path: path) }
  }

  @Test("a file that is no database is left alone and named")
  func noDatabase() throws {
    let text = [UInt8](String(repeating: "Dear diary, ", count: 100).utf8)
    _ = try directory.write(text, to: "carrel.db")
    let error = refusal()
    #expect(error?.kind == .corrupt)
    #expect(error?.context.contains(path) == true)
    #expect(try directory.read("carrel.db") == text)
  }

  @Test("another program's database is refused")
  func foreign() throws {
    let queue = try DatabaseQueue(path: path)
    try queue.write { try $0.execute(sql: "CREATE TABLE recipes (name TEXT)") }
    try queue.close()
    #expect(refusal()?.kind == .corrupt)
  }

  @Test("a newer version's database is refused and says so")
  func newer() throws {
    try SQLiteStore(path: path).close()
    let queue = try DatabaseQueue(path: path)
    try queue.writeWithoutTransaction { try $0.execute(sql: "PRAGMA user_version = 99") }
    try queue.close()
    let error = refusal()
    #expect(error?.kind == .newer)
    #expect(error?.context.contains("99") == true)
  }

  @Test("a database with a damaged page is refused")
  func damaged() async throws {
    let store = try SQLiteStore(path: path)
    for index in 0..<50 {
      let bytes = [UInt8](repeating: 65, count: 1000)
      try await store.commit(.init(writes: [.put(key: "k/\(index)", bytes: bytes, lease: nil)]))
    }
    store.close()
    var bytes = try directory.read("carrel.db")
    for index in bytes.count / 2..<bytes.count / 2 + 4096 { bytes[index] = 0xFF }
    _ = try directory.write(bytes, to: "carrel.db")
    #expect(refusal()?.kind == .corrupt)
  }

  @Test("a missing directory is an error with a remedy")
  func missing() {
    let error = #expect(throws: StoreError.self) {
      try SQLiteStore(path: directory.path("nowhere/carrel.db"))
    }
    #expect(error?.kind == .unavailable)
    #expect(error?.context.contains("state directory") == true)
  }
}

@Suite("A full disk")
struct FullDiskTests {
  @Test(
    "a commit that finds the disk full writes nothing, and works again once there is room",
    .needsRoot)
  func full() async throws {
    let disk = try SmallDisk(kibibytes: 512)
    let store = try SQLiteStore(path: disk.path + "/carrel.db")
    try await store.commit(
      .init(writes: [.put(key: "before", bytes: [1], lease: nil)]))
    try disk.fill()
    let large = [UInt8](repeating: 7, count: 100_000)
    let transaction = StoreTransaction(writes: [
      .put(key: "small", bytes: [2], lease: nil), .put(key: "large", bytes: large, lease: nil),
    ])
    let error = await #expect(throws: StoreError.self) { try await store.commit(transaction) }
    #expect(error?.kind == .full)
    #expect(try await store.get("small") == nil)
    #expect(try await store.get("before") != nil)
    try disk.empty()
    try await store.commit(transaction)
    #expect(try await store.get("small") != nil)
    store.close()
  }
}
