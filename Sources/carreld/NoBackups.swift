import Brokering

/// Simulated desktops have nothing to be kept.
struct NoBackups: BackupKeeper {
  func jobs() async -> [BackupJob] { [] }

  func cancel(_ job: BackupJobID) async throws(BrokerError) {
    throw BrokerError(.notFound, "there is no job '\(job)'")
  }

  func backups(
    in repository: BackupRepository
  ) async throws(BrokerError) -> [Backup] { [] }

  func begin(
    _ work: BackupWork, for desk: any BackupDesk
  ) async throws(BrokerError) -> BackupJob {
    throw BrokerError(.conflict, "desktops are simulated: there is nothing to keep")
  }
}
