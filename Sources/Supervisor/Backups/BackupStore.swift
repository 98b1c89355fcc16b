import Brokering
import FoundationEssentials
import LinuxSystem
import Logging

/// Where desktops' files from elsewhere are put together. Whatever is in it when `carreld`
/// starts was left half made.
struct BackupWorkshop: Sendable {
  let path: String

  init(stateRoot: String) { path = stateRoot + "/backups" }

  func clear() throws {
    for name in try DesktopDirectory.names(in: path) { try remove("\(path)/\(name)") }
  }

  /// A new directory for one piece of work.
  func makeRoom() throws -> Room {
    try Files.makeDirectory(path)
    let room = Room(path: "\(path)/\(UUID().uuidString.lowercased())")
    try Files.makeDirectory(room.path)
    try Files.makeDirectory(room.files)
    return room
  }

  func remove(_ room: Room) throws { try remove(room.path) }

  /// With all that is in it; links are not followed.
  private func remove(_ path: String) throws {
    do {
      try FileManager.default.removeItem(atPath: path)
    } catch let error as CocoaError where error.code == .fileNoSuchFile {
      return
    }
  }

  struct Room: Sendable {
    let path: String
    /// As in the state directory that they come from.
    var files: String { path + "/files" }
    /// What becomes the desktop's directory.
    var desktop: String { path + "/desktop" }
    /// Where what becomes a template is tried.
    var trial: String { path + "/trial" }
  }
}

/// Backups of this host's desktops, kept by restic.
public actor BackupStore: BackupKeeper {
  private static let mostJobs = 100

  private let supervisor: Supervisor
  private let logger: Logger
  private var tasks: [BackupTask] = []
  private var nextJob = 1

  /// Removes what an earlier `carreld` left half made.
  public init(supervisor: Supervisor, logger: Logger) {
    self.supervisor = supervisor
    self.logger = logger
    do {
      try BackupWorkshop(stateRoot: supervisor.stateRoot).clear()
    } catch {
      logger.warning("what was left of a restore cannot be removed: \(error)")
    }
  }

  public func jobs() -> [BackupJob] { tasks.map(\.described) }

  public func cancel(_ job: BackupJobID) throws(BrokerError) {
    guard let task = tasks.first(where: { $0.id == job }) else {
      throw BrokerError(.notFound, "there is no job '\(job)': see 'carrel backup jobs'")
    }
    guard !task.isDone else {
      throw BrokerError(
        .conflict,
        "job '\(job)' is done already: 'carrel backup jobs' shows what became of it")
    }
    task.cancel()
  }

  public func backups(
    in repository: BackupRepository
  ) async throws(BrokerError) -> [Backup] {
    let task = BackupTask(
      .verify(repository), BackupJobID(rawValue: "list"), begun: .wallClock)
    do {
      return try await offPool { try Restic(repository: repository, task: task).backups() }
    } catch let error as BrokerError {
      throw error
    } catch {
      throw BrokerError(.host, "the backups in \(repository.path) cannot be listed", cause: error)
    }
  }

  public func begin(
    _ work: BackupWork, for desk: any BackupDesk
  ) async throws(BrokerError) -> BackupJob {
    try ImageTool.check(work.repository == nil ? ExportArchive.program : Restic.program)
    if work.repository == nil { try ImageTool.check(ExportArchive.compressor) }
    if let other = tasks.first(where: { !$0.isDone && $0.work.isInTheWay(of: work) }) {
      throw BrokerError(
        .conflict,
        "job \(other.id) (\(other.work.kind.rawValue)) is under way: wait for it, or end it with "
          + "'carrel backup cancel \(other.id)'")
    }
    let task = BackupTask(work, BackupJobID(rawValue: "b\(nextJob)"), begun: .wallClock)
    nextJob += 1
    tasks.append(task)
    if tasks.count > Self.mostJobs, let old = tasks.firstIndex(where: \.isDone) {
      tasks.remove(at: old)
    }
    logger.info("backup job begun", metadata: ["job": "\(task.id)", "kind": "\(work.kind)"])
    let worker = BackupWorker(supervisor: supervisor, desk: desk, task: task)
    let logger = self.logger
    Task {
      do {
        try await worker.run()
        task.end(.ready)
        logger.info("backup job done", metadata: ["job": "\(task.id)"])
      } catch {
        task.end(.failed(problem: "\(error)"), Self.kind(of: error))
        logger.error("backup job failed: \(error)", metadata: ["job": "\(task.id)"])
      }
    }
    return task.described
  }

  private static func kind(of error: any Error) -> BrokerError.Kind {
    if let error = error as? BrokerError { return error.kind }
    return (error as? SystemError)?.kind == .noSpace ? .storage : .host
  }
}
