/// What an administrator does to desktops and sessions.
extension Site {
  mutating func performOnDesktop(_ command: AdminCommand, now: Timestamp) throws(BrokerError) {
    switch command {
    case .startDesktop(let id): try start(find(id), now: now)
    case .stopDesktop(let id, let force): try stop(find(id), force: force, now: now)
    case .resetDesktop(let id): try reset(find(id), now: now)
    case .suspendDesktop(let id, let force): try suspend(find(id), force: force, now: now)
    case .resumeDesktop(let id): try resume(find(id), now: now)
    case .revertDesktop(let id, let name, let force):
      try revert(find(id), to: name, force: force, now: now)
    case .releaseDesktop(let id, let force):
      let record = try find(id)
      guard record.owner != nil else {
        throw BrokerError(
          .conflict, "desktop '\(id)' belongs to nobody: there is nothing to release")
      }
      try refuseInUse(record, force: force, verb: "release")
      release(record, telling: "Your desktop was taken back.", now: now)
    case .deleteDesktop(let id, let force):
      let record = try find(id)
      if let owner = record.owner, !force {
        throw BrokerError(
          .conflict,
          "desktop '\(id)' belongs to \(owner): delete it and what is on it with "
            + "'carrel desktop delete \(id) --force'")
      }
      drain(record, now: now)
      endSession(on: id, telling: "Your desktop was deleted.", now: now)
    case .assignDesktop(let id, let user): try assign(find(id), to: find(user).name, now: now)
    case .endSession(let id):
      let session = try find(id)
      note(
        .sessionEndedByAdministrator, "session \(id) on \(session.desktop) was ended",
        user: session.user, desktop: session.desktop, now: now)
      endSession(on: session.desktop, telling: "Your session was ended.", now: now)
    default: break
    }
  }

  private mutating func start(_ record: Desktop, now: Timestamp) throws(BrokerError) {
    guard record.phase != .draining else {
      throw BrokerError(.conflict, "desktop '\(record.id)' is being deleted")
    }
    desktop(record.id, .powerWanted(true, held: false), now: now)
    note(
      .desktopStarting, "\(record.id) is started by the administrator", user: record.owner,
      desktop: record.id, now: now)
  }

  private mutating func stop(_ record: Desktop, force: Bool, now: Timestamp) throws(BrokerError) {
    try refuseInUse(record, force: force, verb: "stop")
    closeViewer(of: record, "Your desktop was switched off by the administrator.", now: now)
    desktop(record.id, .powerWanted(false, held: true), now: now)
    note(
      .desktopStopped, "\(record.id) is stopped by the administrator", user: record.owner,
      desktop: record.id, now: now)
  }

  mutating func closeViewer(of record: Desktop, _ text: String, now: Timestamp) {
    guard let session = session(on: record.id), let viewer = viewer(of: session.id) else { return }
    viewers[viewer.id] = nil
    actions.append(.close(viewer.id, text))
    desktop(record.id, .viewerLeft, now: now)
  }

  private mutating func suspend(
    _ record: Desktop, force: Bool, now: Timestamp
  ) throws(BrokerError) {
    guard record.phase != .suspended else { return }
    guard [.assigned, .connected, .disconnected].contains(record.phase) else {
      throw BrokerError(
        .conflict,
        "desktop '\(record.id)' is \(record.phase.rawValue): only what belongs to a user can be "
          + "suspended")
    }
    guard record.power == .running else {
      throw BrokerError(
        .conflict, "desktop '\(record.id)' is not running, so there is nothing to suspend")
    }
    try refuseInUse(record, force: force, verb: "suspend")
    closeViewer(of: record, "Your desktop was suspended by the administrator.", now: now)
    desktop(record.id, .suspendWanted, now: now)
    note(
      .sessionSuspended, "\(record.id) is suspended by the administrator", user: record.owner,
      desktop: record.id, now: now)
  }

  private mutating func resume(_ record: Desktop, now: Timestamp) throws(BrokerError) {
    guard record.phase == .suspended else {
      guard record.power != .running else { return }
      throw BrokerError(
        .conflict,
        record.saved
          ? "desktop '\(record.id)' is being woken already"
          : "desktop '\(record.id)' is not suspended: start it with "
            + "'carrel desktop start \(record.id)'")
    }
    desktop(record.id, .resumeWanted, now: now)
    note(
      .sessionResumed, "\(record.id) is woken by the administrator", user: record.owner,
      desktop: record.id, now: now)
  }

  private mutating func revert(
    _ record: Desktop, to name: SnapshotName, force: Bool, now: Timestamp
  ) throws(BrokerError) {
    guard ![.dirty, .recycling, .draining].contains(record.phase) else {
      throw BrokerError(.conflict, "desktop '\(record.id)' is being thrown away")
    }
    try refuseInUse(
      record, force: force, verb: "revert", command: "snapshot revert \(record.id) \(name)")
    desktop(record.id, .revertWanted(name), now: now)
    note(
      .desktopReverted, "\(record.id) goes back to its snapshot '\(name)'", user: record.owner,
      desktop: record.id, now: now)
  }

  private mutating func reset(_ record: Desktop, now: Timestamp) throws(BrokerError) {
    if record.phase == .suspended {
      throw BrokerError(
        .conflict,
        "desktop '\(record.id)' is suspended: wake it with 'carrel desktop resume \(record.id)'")
    }
    if record.phase == .failed || record.retryAt != nil {
      desktop(record.id, .retried, now: now)
    } else if record.power == .running {
      actions.append(.reset(record.id))
    } else {
      throw BrokerError(
        .conflict,
        "desktop '\(record.id)' is not running: start it with 'carrel desktop start \(record.id)'")
    }
    note(
      .desktopReset, "\(record.id) is reset by the administrator", user: record.owner,
      desktop: record.id, now: now)
  }

  private mutating func assign(
    _ record: Desktop, to user: UserName, now: Timestamp
  ) throws(BrokerError) {
    guard isEntitled(user, to: record.pool) else {
      throw BrokerError(
        .conflict,
        "user '\(user)' is not entitled to pool '\(record.pool)': "
          + "'carrel entitle \(user) \(record.pool)'")
    }
    guard record.isAssignable else {
      let owner = record.owner.map { "belongs to \($0)" } ?? "is \(record.phase.rawValue)"
      throw BrokerError(
        .conflict,
        "desktop '\(record.id)' \(owner) and cannot be assigned: see "
          + "'carrel desktop show \(record.id)'")
    }
    desktop(record.id, .assigned(user), now: now)
    note(
      .desktopAssigned, "\(record.id) was assigned by the administrator", user: user,
      desktop: record.id, now: now)
  }

  /// Takes a desktop from its owner: it is dirty, whatever the pool's kind.
  mutating func release(_ record: Desktop, telling text: String, now: Timestamp) {
    note(
      .desktopReleased, "\(record.id) is taken from its owner", user: record.owner,
      desktop: record.id, now: now)
    endSession(on: record.id, telling: text, now: now)
    desktop(record.id, .released, now: now)
  }

  func refuseInUse(
    _ record: Desktop, force: Bool, verb: String, command: String? = nil
  ) throws(BrokerError) {
    guard !force, let session = session(on: record.id), viewer(of: session.id) != nil else {
      return
    }
    throw BrokerError(
      .conflict,
      "\(session.user) is using desktop '\(record.id)': "
        + "'carrel \(command ?? "desktop \(verb) \(record.id)") --force' does it all the same")
  }
}
