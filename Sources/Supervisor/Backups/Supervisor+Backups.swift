import Brokering
import FoundationEssentials
import LinuxSystem

extension Supervisor {
  /// More images under one disk are too many to add another.
  private static let mostLayers = 48

  /// Takes a desktop for a backup: what its disk was made of until now is not written any
  /// more, and what the backup says about itself lies beside it. Memory is what differs from
  /// what was saved before, where that is there.
  ///
  /// - Parameter isWhole: take all of a running desktop's memory.
  func takeForBackup(
    _ subject: BackupSubject, isWhole: Bool
  ) async throws -> BackupManifest {
    let desktop = subject.desktop
    let directory = directory(of: desktop)
    await awaitTidying(of: desktop)
    try checkIdle(desktop)
    let identifier = UUID().uuidString.lowercased()
    let making = SnapshotMaking(
      request: SnapshotRequest(
        name: SnapshotName(rawValue: "backup-\(identifier.prefix(8))"),
        shape: DesktopShape(of: subject.pool), quiesces: true),
      shelf: SnapshotShelf(directory: directory), isRunning: try isTakenRunning(desktop),
      begun: .wallClock, program: settings.vmm, limit: settings.suspendLimit,
      identifier: identifier, quiescing: quiescing(directory), failpoints: failpoints,
      isBackup: true, isWhole: isWhole)
    let stateRoot = settings.stateDirectory
    makings[desktop] = making
    defer {
      endMaking(of: desktop)
      restings[desktop] = nil
    }
    let taking = Task {
      try await offPool {
        try making.shelf.removeBackups()
        if making.isRunning { making.shorten() }
        try Self.checkChain(in: directory)
        let record = try making.run()
        let manifest = try BackupManifest(
          of: subject, record, in: directory, stateRoot: stateRoot)
        try directory.store(manifest, at: directory.backupManifest)
        return manifest
      }
    }
    if !making.isRunning { restings[desktop] = Task { _ = await taking.result } }
    return try await taking.value
  }

  private static func checkChain(in directory: DesktopDirectory) throws {
    let disks = try DiskLayers(in: directory.state)
    guard let top = disks.top, try disks.chain(from: top).count >= mostLayers else { return }
    throw BrokerError(
      .conflict,
      "the disk of desktop '\(directory.desktop)' is made of \(mostLayers) images: stop and start "
        + "it, so that they are merged")
  }

  /// What was taken is not needed any more, but for the memory of a desktop that runs on, which
  /// the next backup builds upon.
  func endBackup(of desktop: DesktopID) async {
    let directory = directory(of: desktop)
    await awaitTidying(of: desktop)
    do {
      try checkIdle(desktop)
      try await offPool {
        try Files.remove(directory.backupManifest)
        try SnapshotShelf(directory: directory).removeBackups()
      }
    } catch {
      // The next backup does it.
      logger.warning("backup not tidied: \(error)", metadata: ["desktop": "\(desktop)"])
    }
  }

  nonisolated var stateRoot: String { settings.stateDirectory }
  nonisolated var machineProgram: String { settings.vmm }
}

extension SnapshotShelf {
  /// Removes what was taken for backups that are done, or never came to their end.
  func removeBackups() throws {
    for record in try records() where record.isBackup == true { try remove(record) }
    try sweep()
  }
}
