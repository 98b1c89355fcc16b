import Brokering
import Synchronization

/// Backups that are ready at once, with one that is there already.
final class TestBackups: BackupKeeper {
  private let content = Mutex<[BackupJob]>([])
  private let desktop = DesktopID(rawValue: "office-9")
  private let failure = Mutex<BrokerError?>(nil)

  /// From now on work fails with that.
  func fail(with error: BrokerError) { failure.withLock { $0 = error } }

  func jobs() async -> [BackupJob] { content.withLock { $0 } }

  func cancel(_ job: BackupJobID) async throws(BrokerError) {}

  func backups(in repository: BackupRepository) async throws(BrokerError) -> [Backup] {
    [
      Backup(
        id: "0123abcd", desktop: desktop, pool: desktop.pool, owner: UserName(rawValue: "bob"),
        created: Timestamp(milliseconds: 0), bytes: 4096, hasMemory: true)
    ]
  }

  func begin(
    _ work: BackupWork, for desk: any BackupDesk
  ) async throws(BrokerError) -> BackupJob {
    let number = content.withLock { $0.count }
    func job(_ kind: BackupJob.Kind, _ desktops: [DesktopID] = []) -> BackupJob {
      var job = BackupJob(
        id: BackupJobID(rawValue: "b\(number)"), kind: kind, begun: Timestamp(milliseconds: 0),
        state: .ready)
      job.results = desktops.map { BackupJob.Result(desktop: $0) }
      return job
    }
    func restored(_ kind: BackupJob.Kind, _ wish: RestoreWish) async throws(BrokerError)
      -> BackupJob
    {
      let place = try await desk.place(
        BackupContents(desktop: desktop, owner: nil, hasDisk: false), wish)
      try await desk.settle(place, hasMemory: true)
      return job(kind, [place.desktop])
    }
    var done: BackupJob
    switch work {
    case .run(let desktops, _): done = job(.run, desktops)
    case .verify: done = job(.verify)
    case .prune: done = job(.prune)
    case .export(let id, _): done = job(.export, [id])
    case .exportTemplate(let pool, let generation, _):
      done = job(.export, [DesktopID(rawValue: "\(pool)@\(generation ?? 7)")])
    case .restore(_, let wish, let repository):
      done = try await restored(.restore, wish)
      done.notes = ["opened with " + String(decoding: repository.key ?? [], as: UTF8.self)]
    case .importFile(_, let wish): done = try await restored(.importFile, wish)
    }
    if let error = failure.withLock({ $0 }) {
      (done.state, done.problemKind) = (.failed(problem: "\(error)"), error.kind)
    }
    content.withLock { $0.append(done) }
    return done
  }
}
