import Brokering
import Synchronization

/// A store in memory that can be told to fail.
actor MemoryStore: KeyValueStore {
  private var rows: [String: (bytes: [UInt8], revision: Int64)] = [:]
  private var revision: Int64 = 0
  private var failure: StoreError.Kind?
  private let journal: Journal

  init(journal: Journal = Journal()) { self.journal = journal }

  func fail(with kind: StoreError.Kind?) { failure = kind }

  func get(_ key: String) async throws(StoreError) -> StoredValue? {
    rows[key].map { StoredValue(key: key, bytes: $0.bytes, revision: $0.revision) }
  }

  func list(
    prefix: String
  ) async throws(StoreError) -> (values: [StoredValue], revision: Int64) {
    let values = rows.filter { $0.key.hasPrefix(prefix) }.sorted { $0.key < $1.key }
    return (
      values.map { StoredValue(key: $0.key, bytes: $0.value.bytes, revision: $0.value.revision) },
      revision
    )
  }

  func commit(_ transaction: StoreTransaction) async throws(StoreError) -> Int64 {
    if let failure { throw StoreError(failure, "told to fail") }
    for comparison in transaction.comparisons
    where (rows[comparison.key]?.revision ?? 0) != comparison.revision {
      throw StoreError(.conflict, "\(comparison.key) was changed")
    }
    revision += 1
    for write in transaction.writes {
      switch write {
      case .put(let key, let bytes, _):
        rows[key] = (bytes, revision)
        journal.add("store \(key)")
      case .delete(let key):
        rows[key] = nil
        journal.add("forget \(key)")
      }
    }
    return revision
  }

  func watch(
    prefix: String, after revision: Int64
  ) async throws(StoreError) -> AsyncStream<StoreChange> {
    AsyncStream { $0.finish() }
  }

  func grantLease(seconds: Int) async throws(StoreError) -> LeaseID { LeaseID(1) }
  func keepAlive(_ lease: LeaseID) async throws(StoreError) {}
  func revoke(_ lease: LeaseID) async throws(StoreError) {}
}

/// What happened, in order, and a way to wait for it.
final class Journal: Sendable {
  private struct State {
    var lines: [String] = []
    var waiters: [(needle: String, continuation: CheckedContinuation<Void, Never>)] = []
  }

  private let state = Mutex(State())

  var lines: [String] { state.withLock { $0.lines } }

  func add(_ line: String) {
    let ready = state.withLock { state in
      state.lines.append(line)
      let ready = state.waiters.filter { line.hasPrefix($0.needle) }
      state.waiters.removeAll { line.hasPrefix($0.needle) }
      return ready
    }
    for waiter in ready { waiter.continuation.resume() }
  }

  /// Returns once a line that begins so was added, now or before.
  func wait(for needle: String) async {
    await withCheckedContinuation { continuation in
      let present = state.withLock { state in
        if state.lines.contains(where: { $0.hasPrefix(needle) }) { return true }
        state.waiters.append((needle, continuation))
        return false
      }
      if present { continuation.resume() }
    }
  }
}

/// Starts and stops at once, and writes down that it did.
struct InstantLauncher: Launcher {
  let journal: Journal
  let exits: AsyncStream<DesktopExit>
  let ended: AsyncStream<DesktopExit>.Continuation
  let progress: AsyncStream<StartProgress>
  let progressed: AsyncStream<StartProgress>.Continuation
  /// Whether a start ends; one that does not is as one that takes long.
  var startsEnd = true
  var survivors: [Survivor] = []
  var snapshots: [DesktopSnapshot] = []

  init(journal: Journal) {
    self.journal = journal
    (exits, ended) = AsyncStream.makeStream()
    (progress, progressed) = AsyncStream.makeStream()
  }

  func start(_ request: LaunchRequest) async throws(LaunchError) {
    journal.add("start \(request.desktop)")
    if !startsEnd { try? await Task.sleep(for: .seconds(600)) }
  }
  func comeUp(_ desktop: DesktopID) async -> StartKind {
    journal.add("come up \(desktop)")
    return .cloned
  }
  func stop(_ desktop: DesktopID, graceSeconds: Int?) async throws(LaunchError) {
    journal.add("stop \(desktop)")
  }
  func discard(_ desktop: DesktopID) async throws(LaunchError) {
    journal.add("discard \(desktop)")
  }
  func identify(_ desktop: DesktopID, as identity: DesktopIdentity) async throws(LaunchError) {
    journal.add("identify \(desktop) \(identity.user)")
  }
  func pressPowerButton(_ desktop: DesktopID) async throws(LaunchError) {}
  func reset(_ desktop: DesktopID) async throws(LaunchError) { journal.add("reset \(desktop)") }
  func limitDisk(_ desktop: DesktopID, to limits: DiskLimits) async throws(LaunchError) {
    journal.add("limit \(desktop) \(limits.operations ?? 0)")
  }
  func prioritize(_ desktop: DesktopID, as priority: MemoryPriority) async {}
  func suspend(_ desktop: DesktopID) async throws(LaunchError) {}
  func screenshot(_ desktop: DesktopID) async throws(LaunchError) -> [UInt8] { [1, 2, 3] }
  func ask(
    _ desktop: DesktopID, _ request: AgentRequest
  ) async throws(LaunchError) -> AgentAnswer {
    journal.add("ask \(desktop)")
    return .done
  }
  func snapshots(of desktop: DesktopID) async throws(BrokerError) -> [DesktopSnapshot] {
    snapshots
  }
  func beginSnapshot(
    of desktop: DesktopID, _ request: SnapshotRequest
  ) async throws(BrokerError) {
    journal.add("take \(desktop) \(request.name)")
  }
  func deleteSnapshot(_ name: SnapshotName, of desktop: DesktopID) async throws(BrokerError) {
    journal.add("delete \(desktop) \(name)")
  }
  func revert(_ desktop: DesktopID, to name: SnapshotName) async throws(LaunchError) -> Bool {
    journal.add("revert \(desktop) \(name)")
    return snapshots.first { $0.name == name }?.hasMemory ?? false
  }
  func survey() async throws(LaunchError) -> [Survivor] { survivors }
  func displayLink(of desktop: DesktopID) -> String { "/run/\(desktop)" }
}

/// Passwords are their own verifiers; a ticket answers with itself.
struct PlainAuthenticator: Authenticator {
  func makeVerifier(of password: [UInt8]) async throws -> String {
    String(decoding: password, as: UTF8.self)
  }
  func verify(_ password: [UInt8], against verifier: String?) async -> Bool {
    verifier == String(decoding: password, as: UTF8.self)
  }
  func makeTicketSecret() throws -> String { "ticket-1" }
  func ticket(_ secret: String, answers challenge: [UInt8], with response: [UInt8]) -> Bool {
    response == [UInt8](secret.utf8)
  }
}

/// Stands still unless moved; sleeping takes a moment of real time and none of its own.
final class HandClock: BrokerClock {
  private let time = Mutex(Timestamp(milliseconds: 1_000_000))

  var now: Timestamp { time.withLock { $0 } }
  func pass(seconds: Int) { time.withLock { $0 = $0.adding(seconds: seconds) } }

  func sleep(until deadline: Timestamp) async {
    try? await Task.sleep(for: .milliseconds(5))
  }
}

/// A viewer that writes down what it is told.
struct JournalViewer: ViewerConnection {
  let id: ConnectionID
  let journal: Journal

  func attach(displayLink path: String) { journal.add("\(id) attach \(path)") }
  func setKeyboardLayout(_ layout: String) { journal.add("\(id) layout \(layout)") }
  func detach() { journal.add("\(id) detach") }
  func showStatus(_ text: String, percent: Int?) {
    journal.add("\(id) status \(text)" + (percent.map { " \($0)%" } ?? ""))
  }
  func setName(_ name: String) { journal.add("\(id) name \(name)") }
  func close(telling text: String) { journal.add("\(id) close \(text)") }
}
