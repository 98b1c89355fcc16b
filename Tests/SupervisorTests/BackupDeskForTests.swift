import Brokering
import Foundation
import LinuxSystem
import Logging
import Supervisor
import Synchronization
import TestSupport
import Testing

/// The broker of a test: every desktop is Alice's, and a restored one gets the name that is
/// wished for.
final class TestDesk: BackupDesk {
  let pool: Pool
  private let settled = Mutex<[(desktop: DesktopID, hasMemory: Bool)]>([])
  private let owner = Mutex(UserName(rawValue: "alice"))
  private let refusing = Mutex(false)
  private let asked = Mutex(false)
  private let wayThere = Mutex<DesktopWay?>(DesktopWay(name: "alice"))

  /// Whether it is known.
  private let hasPool: Bool

  init(pool: Pool, hasPool: Bool = true) {
    self.pool = pool
    self.hasPool = hasPool
  }

  var results: [(desktop: DesktopID, hasMemory: Bool)] { settled.withLock { $0 } }

  /// From now on no restored desktop is taken.
  func refuse() { refusing.withLock { $0 = true } }

  /// How the owner gets to restored desktops from now on.
  func lead(by way: DesktopWay?) { wayThere.withLock { $0 = way } }

  func give(to user: String) { owner.withLock { $0 = UserName(rawValue: user) } }

  func subject(_ desktop: DesktopID) async throws(BrokerError) -> BackupSubject {
    BackupSubject(desktop: desktop, owner: owner.withLock { $0 }, pool: pool)
  }

  /// Whether anybody asked it for a place.
  var wasAsked: Bool { asked.withLock { $0 } }

  func place(
    _ contents: BackupContents, _ wish: RestoreWish
  ) async throws(BrokerError) -> RestorePlace {
    asked.withLock { $0 = true }
    let desktop = wish.desktop ?? contents.desktop
    return RestorePlace(
      pool: pool, number: UInt64(desktop.number) ?? 0,
      owner: wish.owner ?? contents.owner ?? UserName(rawValue: "nobody"))
  }

  func settle(_ place: RestorePlace, hasMemory: Bool) async throws(BrokerError) {
    guard !refusing.withLock({ $0 }) else { throw BrokerError(.conflict, "the pool is full") }
    settled.withLock { $0.append((place.desktop, hasMemory)) }
  }

  func way(to desktop: DesktopID) async -> DesktopWay? { wayThere.withLock { $0 } }

  func leave(_ place: RestorePlace) async {}

  func machine(of pool: PoolName) async -> TemplateMachine? {
    hasPool && pool == self.pool.name ? TemplateMachine(of: self.pool) : nil
  }
}

/// A supervisor, a pool and a directory for backups.
struct BackupSite {
  let running: RunningSupervisor
  let desk: TestDesk
  let store: BackupStore
  let office = DesktopID(rawValue: "office-1")

  /// - Parameters:
  ///   - image: of the library; without it desktops are kernels.
  ///   - kernel: the file of those, instead of one of this site's own.
  ///   - hasPool: whether the broker knows the pool.
  ///   - state: where the state directory is.
  init(
    image: [UInt8]? = nil, after earlier: BackupSite? = nil, kernel: String? = nil,
    memoryMiB: Int = 16, hardware: Hardware = Hardware(), hasPool: Bool = true,
    state: String? = nil,
    failpoints: Failpoints = .none
  ) throws {
    running = try RunningSupervisor(after: earlier?.running, failpoints: failpoints) {
      if let state { $0.stateDirectory = state }
    }
    let kind: Image
    if let image {
      let place = running.settings.stateDirectory + "/images/debian"
      try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
      try Files.replace(place + "/image.raw", with: image)
      try Files.replace(place + "/image.json", with: Array("{}".utf8))
      kind = Image(kind: .disk, path: place + "/image.raw")
    } else {
      kind =
        earlier?.desk.pool.image
        ?? Image(kind: .kernel, path: kernel ?? running.directory.path("guest.elf"))
    }
    desk = TestDesk(
      pool: Pool(
        name: PoolName(rawValue: "office"), kind: .dedicated, image: kind, memoryMiB: memoryMiB,
        hardware: hardware, size: 5, spares: 0, policies: PoolPolicies(),
        created: Timestamp(milliseconds: 0)),
      hasPool: hasPool)
    store = BackupStore(
      supervisor: running.supervisor,
      logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
  }

  var supervisor: Supervisor { running.supervisor }
  var state: String { running.settings.stateDirectory }

  func repository(
    _ name: String = "backups", key: String? = nil
  ) throws -> BackupRepository {
    try BackupRepository(
      path: name.hasPrefix("/") ? name : running.directory.path(name),
      key: key.map { Array($0.utf8) })
  }

  func start(
    _ generation: UInt64, _ desktop: String = "office-1", resumes: Bool = false
  ) async throws {
    try await supervisor.start(
      LaunchRequest(
        desktop: DesktopID(rawValue: desktop), generation: generation, image: desk.pool.image,
        memoryMiB: desk.pool.memoryMiB, cpus: 1, hardware: desk.pool.hardware,
        disk: generation == 1 ? .fresh : .keep,
        resumes: resumes,
        user: UserName(rawValue: "alice"), keyboardLayout: "en-us"))
  }

  func stop(_ desktop: String = "office-1") async throws {
    try await supervisor.stop(DesktopID(rawValue: desktop), graceSeconds: nil)
  }

  /// Has work done, and waits for its end.
  @discardableResult
  func perform(_ work: BackupWork) async throws -> BackupJob {
    try await end(of: store.begin(work, for: desk))
  }

  func end(of job: BackupJob) async throws -> BackupJob {
    while true {
      let job = try #require(await store.jobs().first { $0.id == job.id })
      guard case .working = job.state else { return job }
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  /// As `perform`, for what must work.
  @discardableResult
  func succeed(_ work: BackupWork) async throws -> BackupJob {
    let job = try await perform(work)
    #expect(job.state == .ready)
    return job
  }

  /// As `perform`, for what must not.
  func problem(_ work: BackupWork) async throws -> String {
    guard case .failed(let problem) = try await perform(work).state else {
      Issue.record("it worked")
      return ""
    }
    return problem
  }

  /// Makes a backup of the first desktop.
  @discardableResult
  func backUp(_ repository: BackupRepository) async throws -> BackupJob.Result {
    let job = try await succeed(.run([office], repository))
    return try #require(job.results.first)
  }

  /// Has `qemu-io` do something with a desktop's disk.
  func onDisk(_ commands: String..., of desktop: String = "office-1") throws {
    let place = "\(state)/desktops/\(desktop)"
    let top = try #require(
      try FileManager.default.contentsOfDirectory(atPath: place)
        .filter { $0.hasPrefix("disk-") }.max { ($0.count, $0) < ($1.count, $1) })
    let words = commands.map { "-c '\($0)'" }.joined(separator: " ")
    let (status, output) = try running.directory.run("qemu-io \(words) \(place)/\(top)")
    #expect(status == 0 && !output.contains("failed"), "\(commands) on \(top): \(output)")
  }

  func files(_ desktop: String = "office-1") throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: "\(state)/desktops/\(desktop)").sorted()
  }

  /// What is left in the place where desktops are put together.
  func remains() -> [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: state + "/backups")) ?? []
  }
}
