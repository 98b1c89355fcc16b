import Brokering
import ControlAPI
import Hummingbird

extension ControlServer {
  static func addBackupRoutes(
    to router: Router<ControlContext>, _ broker: Broker, _ keeper: any BackupKeeper
  ) {
    router.post("/v1/backups/list") { request, _ in
      let request = try await request.body(as: BackupRequest.self)
      let scope = try await request.scope(broker, mustExist: false)
      return answer(
        try await keeper.backups(in: request.place()).filter { $0.isOf(scope) }
          .map(BackupDocument.init))
    }
    router.post("/v1/backups/run") { request, _ in
      let request = try await request.body(as: BackupRequest.self)
      let desktops = try await broker.desktops(
        of: request.scope(broker, mustExist: true), all: request.all ?? false)
      return try await begin(.run(desktops, request.place()), broker, keeper)
    }
    router.post("/v1/backups/verify") { request, _ in
      let request = try await request.body(as: BackupRequest.self)
      return try await begin(.verify(request.place()), broker, keeper)
    }
    router.post("/v1/backups/restore") { request, _ in
      let request = try await request.body(as: BackupRequest.self)
      let backup = try given(request.backup, "backup")
      return try await begin(
        .restore(backup: backup, request.wish(), request.place()), broker, keeper)
    }
    router.post("/v1/backups/prune") { request, _ in
      let request = try await request.body(as: BackupRequest.self)
      let scope = try await request.scope(broker, mustExist: false)
      let retention = try Retention(last: request.keepLast, within: request.keepWithin)
      return try await begin(.prune(scope, retention, request.place()), broker, keeper)
    }
    router.post("/v1/backups/export") { request, _ in
      let request = try await request.body(as: BackupRequest.self)
      let work = try await broker.exportWork(
        of: given(request.subject, "subject"), to: given(request.file, "file"))
      return try await begin(work, broker, keeper)
    }
    router.post("/v1/backups/import") { request, _ in
      let request = try await request.body(as: BackupRequest.self)
      return try await begin(
        .importFile(given(request.file, "file"), request.wish()), broker, keeper)
    }
    router.get("/v1/backups/jobs") { _, _ in
      answer(await keeper.jobs().map(BackupJobDocument.init))
    }
    router.get("/v1/backups/jobs/{id}") { _, context in
      let id = try context.name("id", as: BackupJobID.self)
      guard let job = await keeper.jobs().first(where: { $0.id == id }) else {
        throw BrokerError(.notFound, "there is no job '\(id)': see 'carrel backup jobs'")
      }
      return answer(BackupJobDocument(job))
    }
    router.delete("/v1/backups/jobs/{id}") { _, context in
      try await keeper.cancel(context.name("id", as: BackupJobID.self))
      return HTTPResponse.Status.noContent
    }
  }

  private static func begin(
    _ work: BackupWork, _ broker: Broker, _ keeper: any BackupKeeper
  ) async throws -> JSONAnswer<BackupJobDocument> {
    answer(BackupJobDocument(try await keeper.begin(work, for: broker)), .accepted)
  }

  private static func given(_ value: String?, _ name: String) throws(BrokerError) -> String {
    guard let value else { throw BrokerError(.invalid, "the request lacks '\(name)'") }
    return value
  }
}

extension BackupRequest {
  fileprivate func place() throws(BrokerError) -> BackupRepository {
    guard let repository else {
      throw BrokerError(.invalid, "say where the backups are with --to")
    }
    return try BackupRepository(path: repository, key: key.map { Array($0.utf8) })
  }

  fileprivate func wish() throws(BrokerError) -> RestoreWish {
    var wish = RestoreWish()
    if let desktop { wish.desktop = try DesktopID(checking: desktop) }
    if let pool { wish.pool = try PoolName(checking: pool) }
    if let owner { wish.owner = try UserName(checking: owner) }
    return wish
  }

  /// - Parameter mustExist: whether what is gone cannot be meant.
  fileprivate func scope(_ broker: Broker, mustExist: Bool) async throws -> BackupScope {
    guard let subject else { return .all }
    return try await broker.backupScope(named: subject, mustExist: mustExist)
  }
}

extension Backup {
  fileprivate func isOf(_ scope: BackupScope) -> Bool {
    switch scope {
    case .desktop(let id): desktop == id
    case .pool(let name): (desktop.pool ?? pool) == name
    case .all: true
    }
  }
}

extension BackupDocument {
  fileprivate init(_ backup: Backup) {
    self.init(
      id: backup.id, desktop: backup.desktop.rawValue, pool: backup.pool?.rawValue,
      owner: backup.owner?.rawValue, created: WireTime(backup.created), bytes: backup.bytes,
      memory: backup.hasMemory)
  }
}

extension BackupJobDocument {
  fileprivate init(_ job: BackupJob) {
    self.init(
      id: job.id.rawValue, kind: job.kind.rawValue, state: "ready", begun: WireTime(job.begun),
      results: job.results.map {
        Result(
          desktop: $0.desktop.rawValue, backup: $0.backup, addedBytes: $0.addedBytes,
          problem: $0.problem)
      }, notes: job.notes)
    switch job.state {
    case .ready: break
    case .working(let step, let percent):
      (state, self.step, self.percent) = ("working", step, percent)
    case .failed(let problem):
      (state, self.problem, problemKind) = ("failed", problem, job.problemKind?.wire)
    }
  }
}
