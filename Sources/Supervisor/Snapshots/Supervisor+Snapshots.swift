import Brokering
import FoundationEssentials
import Glibc
import LinuxSystem

extension Supervisor {
  public func snapshots(
    of desktop: DesktopID
  ) async throws(BrokerError) -> [DesktopSnapshot] {
    let shelf = SnapshotShelf(directory: directory(of: desktop))
    let making = makings[desktop]
    do {
      let found = try await offPool {
        // Until it is not being taken any more, one that has its record already is that.
        let records = try shelf.records().filter {
          $0.isBackup != true && $0.name != making?.request.name
        }
        let others = [making].compactMap(\.self).filter { !$0.isBackup }
        return records.map { DesktopSnapshot($0, in: shelf) } + others.map(\.described)
      }
      let failed = making == nil ? failedSnapshots[desktop] : nil
      return found + [failed].compactMap { $0 }
    } catch {
      throw explain(error, "the snapshots of desktop '\(desktop)' cannot be listed")
    }
  }

  public func beginSnapshot(
    of desktop: DesktopID, _ request: SnapshotRequest
  ) async throws(BrokerError) {
    let shelf = SnapshotShelf(directory: directory(of: desktop))
    await awaitTidying(of: desktop)
    try checkIdle(desktop)
    let isRunning = try isTakenRunning(desktop)
    let making = SnapshotMaking(
      request: request, shelf: shelf, isRunning: isRunning, begun: .wallClock,
      program: settings.vmm,
      limit: settings.suspendLimit, identifier: UUID().uuidString.lowercased(),
      quiescing: quiescing(shelf.directory), failpoints: failpoints)
    makings[desktop] = making
    do {
      try await offPool {
        guard try !shelf.records().contains(where: { $0.name == request.name }) else {
          throw BrokerError(
            .exists,
            "desktop '\(desktop)' has a snapshot '\(request.name)' already: choose another name, "
              + "or delete it with 'carrel snapshot delete \(desktop) \(request.name)'")
        }
      }
    } catch {
      endMaking(of: desktop)
      throw explain(error, "desktop '\(desktop)' cannot be taken")
    }
    failedSnapshots[desktop] = nil
    // What is off is as it was asked for when this returns: it may be started then.
    if isRunning {
      Task { await take(making) }
    } else {
      guard machine(of: desktop) == nil else {
        endMaking(of: desktop)
        throw BrokerError(.conflict, "desktop '\(desktop)' is starting: try again then")
      }
      let taking = Task { await take(making) }
      restings[desktop] = taking
      await taking.value
      restings[desktop] = nil
      if case .failed(let problem)? = failedSnapshots.removeValue(forKey: desktop)?.state {
        throw BrokerError(.conflict, problem)
      }
    }
  }

  /// Whether it runs, so that its VMM has to be asked.
  func isTakenRunning(_ desktop: DesktopID) throws(BrokerError) -> Bool {
    switch machine(of: desktop) {
    case nil: return false
    case let machine? where machine.isReady && !machine.isUnwanted: return true
    case _?:
      throw BrokerError(.conflict, "desktop '\(desktop)' is starting or stopping: try again then")
    }
  }

  func quiescing(_ directory: DesktopDirectory) -> Quiescing {
    Quiescing(
      directory: directory,
      limits: .init(presence: settings.agentPresenceLimit, answer: settings.agentAnswerLimit),
      logger: logger)
  }

  /// Thaws what may be frozen, however long it takes.
  func thawIfDue(_ directory: DesktopDirectory) {
    let quiescing = quiescing(directory)
    guard quiescing.isDue else { return }
    Task { try? await offPool { try quiescing.thawInTheEnd() } }
  }

  private func take(_ making: SnapshotMaking) async {
    let desktop = making.shelf.directory.desktop
    let name = making.request.name
    do {
      try await offPool { try making.run() }
      logger.info("snapshot taken", metadata: ["desktop": "\(desktop)", "snapshot": "\(name)"])
    } catch {
      logger.error(
        "snapshot failed: \(error)", metadata: ["desktop": "\(desktop)", "snapshot": "\(name)"])
      failedSnapshots[desktop] = DesktopSnapshot(
        name: name, state: .failed(problem: "\(error)"), parent: nil, created: making.begun,
        shape: making.request.shape)
    }
    endMaking(of: desktop)
  }

  func endMaking(of desktop: DesktopID) {
    makings[desktop] = nil
    tidyMemory(of: desktop)
    thawIfDue(directory(of: desktop))
    for waiter in makingWaiters.removeValue(forKey: desktop) ?? [] { waiter.resume() }
  }

  /// Returns when no snapshot of it is being taken.
  func awaitMaking(of desktop: DesktopID) async {
    while makings[desktop] != nil {
      await withCheckedContinuation { makingWaiters[desktop, default: []].append($0) }
    }
  }

  public func deleteSnapshot(
    _ name: SnapshotName, of desktop: DesktopID
  ) async throws(BrokerError) {
    await awaitTidying(of: desktop)
    try checkIdle(desktop)
    if failedSnapshots[desktop]?.name == name {
      failedSnapshots[desktop] = nil
      return
    }
    let shelf = SnapshotShelf(directory: directory(of: desktop))
    guard deletions.insert(desktop).inserted else {
      throw BrokerError(.conflict, "another snapshot of desktop '\(desktop)' is being deleted")
    }
    defer {
      deletions.remove(desktop)
      tidyMemory(of: desktop)
    }
    do {
      try await offPool {
        let record = try shelf.find(name)
        guard !shelf.directory.isSuspended || shelf.current() != name else {
          throw BrokerError(
            .conflict,
            "desktop '\(desktop)' is to go on from snapshot '\(name)': start it first")
        }
        try shelf.remove(record)
      }
    } catch {
      throw explain(error, "snapshot '\(name)' of desktop '\(desktop)' cannot be deleted")
    }
  }

  public func revert(
    _ desktop: DesktopID, to name: SnapshotName
  ) async throws(LaunchError) -> Bool {
    let shelf = SnapshotShelf(directory: directory(of: desktop))
    let program = settings.vmm
    do {
      // What would fail is found before anything is given up.
      let record = try await offPool {
        let record = try shelf.check(try shelf.find(name))
        try shelf.tryOut(record, program)
        return record
      }
      await endForGood(desktop)
      // One that was being taken has failed then, and has tidied up.
      await awaitMaking(of: desktop)
      await awaitTidying(of: desktop)
      failpoints.hit("supervisor.revert.ended")
      try await offPool { [failpoints] in try shelf.goBack(to: record, program, failpoints) }
      return record.memory != nil
    } catch {
      throw LaunchError(
        .startFailed, "desktop '\(desktop)' could not go back to its snapshot '\(name)'",
        cause: error)
    }
  }

  func checkIdle(_ desktop: DesktopID) throws(BrokerError) {
    guard !deletions.contains(desktop) else {
      throw BrokerError(
        .conflict, "a snapshot of desktop '\(desktop)' is being deleted: try again then")
    }
    guard let making = makings[desktop] else { return }
    throw BrokerError(
      .conflict,
      "snapshot '\(making.request.name)' of desktop '\(desktop)' is being taken: wait for it")
  }

  private nonisolated func explain(_ error: any Error, _ text: String) -> BrokerError {
    error as? BrokerError ?? BrokerError(.storage, text, cause: error)
  }
}

extension Timestamp {
  /// Of the host's clock.
  static var wallClock: Timestamp {
    let (seconds, nanoseconds) = WallClock.now
    return Timestamp(milliseconds: seconds * 1000 + Int64(nanoseconds / 1_000_000))
  }
}

extension SnapshotShelf {
  func find(_ name: SnapshotName) throws -> SnapshotRecord {
    if let record = try records().first(where: { $0.name == name && $0.isBackup != true }) {
      return record
    }
    throw BrokerError(
      .notFound,
      "desktop '\(directory.desktop)' has no snapshot '\(name)': see "
        + "'carrel snapshot list \(directory.desktop)'")
  }

  /// That all files it needs are there.
  func check(_ record: SnapshotRecord) throws -> SnapshotRecord {
    let disks = try DiskLayers(in: directory.state)
    var paths = (record.bases + [record.memory].compactMap { $0 }).map(memory)
    if record.hasVariables { paths.append(variables(record.name)) }
    if let number = record.layer { paths.append("\(directory.state)/\(DiskLayers.file(number))") }
    for path in paths where !Files.exists(path) {
      throw BrokerError(.storage, "\(path) is gone, which snapshot '\(record.name)' needs")
    }
    if let number = record.layer, disks.layers.first(where: { $0.number == number }) == nil {
      throw BrokerError(.storage, "the disk of snapshot '\(record.name)' is gone")
    }
    return record
  }

  /// That a VMM goes on from its memory: all of it is read, while the desktop runs on.
  func tryOut(_ record: SnapshotRecord, _ program: String) throws {
    guard let identifier = record.memory else { return }
    let layer = try DiskLayers(in: directory.state).layers.first { $0.number == record.layer }
    let disk = layer.map {
      DesktopDisk(
        path: "\(directory.state)/\($0.name)", format: $0.format, over: nil,
        bases: directory.bases)
    }
    let command = VMMCommand(
      checking: memory(identifier), of: record.shape, in: directory, disk: disk)
    let (isSuccess, errors) = try ImageTool.run(program, command.arguments)
    guard isSuccess else {
      throw BrokerError(
        .storage, "it cannot go on from snapshot '\(record.name)', and stays as it is: \(errors)")
    }
  }

  /// Makes the desktop, which no VMM runs, go on from there. A crash on the way leaves
  /// it to be done again; only what was since is gone by then.
  func goBack(
    to record: SnapshotRecord, _ program: String, _ failpoints: Failpoints
  ) throws {
    let record = try check(try find(record.name))
    let disks = try DiskLayers(in: directory.state)
    if let layer = disks.layers.first(where: { $0.number == record.layer }) {
      // The newest image is the desktop's disk: from here on it is the new one.
      try directory.makeOverlay(named: disks.nextName, over: layer, program: program)
    }
    // What was saved belongs to the former disk.
    try directory.removeSuspended(durably: true)
    failpoints.hit("supervisor.revert.disk")
    if record.hasVariables {
      try Files.replace(
        directory.variables, with: try Files.read(variables(record.name), limit: 64 << 20))
    }
    try setCurrent(record.name)
    if let identifier = record.memory {
      // It may not be there.
      _ = link(
        Self.workingSet(of: memory(identifier)), Self.workingSet(of: directory.suspended))
      try suspend(to: SavedMemory(memory: identifier, bases: record.bases))
    }
    failpoints.hit("supervisor.revert.done")
    try sweep()
  }
}
