import Brokering
import LinuxSystem

/// One piece of work with backups. Its threads work; others look how far it is, or end it.
final class BackupTask: Sendable {
  private struct Progress {
    var step = "beginning"
    var percent: Int?
    var end: BackupJob.State?
    var problemKind: BrokerError.Kind?
    var results: [BackupJob.Result] = []
    var notes: [String] = []
    var process: ProcessHandle?
    var isUnwanted = false
  }

  let id: BackupJobID
  let work: BackupWork
  let begun: Timestamp
  private let progress = Guarded(Progress())

  init(_ work: BackupWork, _ id: BackupJobID, begun: Timestamp) {
    self.work = work
    self.id = id
    self.begun = begun
  }

  var described: BackupJob {
    progress.withLock { progress in
      var job = BackupJob(
        id: id, kind: work.kind, begun: begun,
        state: progress.end ?? .working(step: progress.step, percent: progress.percent))
      job.results = progress.results
      job.notes = progress.notes
      job.problemKind = progress.problemKind
      return job
    }
  }

  var isDone: Bool { progress.withLock { $0.end != nil } }

  func tell(_ step: String, _ percent: Int? = nil) {
    progress.withLock { ($0.step, $0.percent) = (step, percent) }
  }

  func tell(percent: Int) {
    progress.withLock { $0.percent = min(100, max(0, percent)) }
  }

  func add(_ result: BackupJob.Result) { progress.withLock { $0.results.append(result) } }
  func note(_ text: String) { progress.withLock { $0.notes.append(text) } }

  func end(_ state: BackupJob.State, _ kind: BrokerError.Kind? = nil) {
    progress.withLock { ($0.end, $0.problemKind) = (state, kind) }
  }

  // MARK: Ending it

  /// Ends it soon.
  func cancel() {
    progress.withLock {
      $0.isUnwanted = true
      try? $0.process?.send(.terminate)
    }
  }

  func checkWanted() throws(BrokerError) {
    guard !progress.withLock({ $0.isUnwanted }) else {
      throw BrokerError(.conflict, "it was cancelled")
    }
  }

  /// The program that works now.
  func setProcess(_ process: ProcessHandle?) {
    progress.withLock {
      $0.process = process
      if $0.isUnwanted { try? process?.send(.terminate) }
    }
  }
}

extension BackupWork {
  var kind: BackupJob.Kind {
    switch self {
    case .run: .run
    case .verify: .verify
    case .restore: .restore
    case .prune: .prune
    case .export, .exportTemplate: .export
    case .importFile: .importFile
    }
  }

  var repository: BackupRepository? {
    switch self {
    case .run(_, let repository), .verify(let repository), .restore(_, _, let repository),
      .prune(_, _, let repository):
      repository
    case .export, .exportTemplate, .importFile: nil
    }
  }

  /// Whether desktops are taken for it.
  private var takes: Bool {
    switch self {
    case .run, .export: true
    case .verify, .restore, .prune, .exportTemplate, .importFile: false
    }
  }
  /// Whether nobody else may use the repository meanwhile.
  private var isAlone: Bool { kind == .verify || kind == .prune }

  func isInTheWay(of other: BackupWork) -> Bool {
    if takes, other.takes { return true }
    guard let repository, repository.path == other.repository?.path else { return false }
    return isAlone || other.isAlone
  }
}
