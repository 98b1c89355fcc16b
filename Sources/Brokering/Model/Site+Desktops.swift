/// Routes events to desktops, and turns what follows into sessions' fates and operations.
extension Site {
  /// Applies a desktop event and lives with its effects.
  mutating func desktop(_ id: DesktopID, _ event: DesktopEvent, now: Timestamp) {
    guard var record = desktops[id] else { return }
    let attempts = policies(of: record).startAttempts
    let before = record.phase
    let effects = record.handle(event, attempts: attempts, now: now)
    desktops[id] = record
    for effect in effects { take(effect, of: record, before: before, now: now) }
  }

  private mutating func take(
    _ effect: DesktopEffect, of desktop: Desktop, before: Desktop.Phase, now: Timestamp
  ) {
    let id = desktop.id
    switch effect {
    case .ready:
      let reason: Reason = desktop.owner == nil ? .desktopClean : .desktopReady
      note(reason, "\(id) is running", user: desktop.owner, desktop: id, now: now)
    case .guestShutDown:
      note(
        .sessionEndedByGuest, "\(id) was shut down from inside", user: desktop.owner, desktop: id,
        now: now)
      endSession(on: id, telling: "Your desktop was shut down.", now: now)
    case .crashed(let text): crashed(desktop, text, now: now)
    case .retrying(let text):
      unattachViewers(of: id)
      note(
        .desktopStartFailed, "\(id): \(text); trying again", user: desktop.owner, desktop: id,
        now: now)
    case .gaveUp(let text):
      note(
        .desktopGivenUp, "\(id): \(text); given up after \(desktop.failures) attempts",
        user: desktop.owner, desktop: id, now: now)
      endSession(
        on: id, telling: "Your desktop cannot be started. Please tell the administrator.", now: now)
    case .sleepsOn(let text):
      note(
        .desktopSleepsOn, "\(id): \(text); it stays suspended", user: desktop.owner, desktop: id,
        now: now)
      closeViewer(
        of: desktop, "Your desktop cannot be woken, and is kept. Please tell the administrator.",
        now: now)
    }
  }

  private mutating func crashed(_ desktop: Desktop, _ text: String, now: Timestamp) {
    unattachViewers(of: desktop.id)
    if policies(of: desktop).afterCrash == .recycle, pools[desktop.pool]?.kind == .floating {
      note(
        .desktopCrashedRecycling, "\(desktop.id): \(text); its session is over",
        user: desktop.owner, desktop: desktop.id, now: now)
      endSession(on: desktop.id, telling: "Your desktop stopped unexpectedly.", now: now)
    } else {
      note(
        .desktopCrashedRestarting, "\(desktop.id): \(text); starting it again",
        user: desktop.owner, desktop: desktop.id, now: now)
    }
  }

  mutating func unattachViewers(of id: DesktopID) {
    guard let session = session(on: id), let viewer = viewer(of: session.id) else { return }
    viewers[viewer.id]?.attached = false
  }

  mutating func discarded(_ id: DesktopID, now: Timestamp) {
    finish(.discard, of: id)
    desktop(id, .discarded, now: now)
    guard let record = desktops[id], record.phase == .draining else { return }
    desktops[id] = nil
    note(.desktopRemoved, "\(id) is deleted", desktop: id, now: now)
  }

  mutating func operationFailed(
    _ id: DesktopID, _ operation: Desktop.Operation, _ text: String, now: Timestamp
  ) {
    finish(operation, of: id)
    switch operation {
    case .discard: desktop(id, .discardFailed(text), now: now)
    case .suspend:
      // It runs on, and is as if nobody had tried.
      desktops[id]?.problem = text
      desktop(id, .resumeWanted, now: now)
      suspendFailed(id, now: now)
    case .revert:
      unattachViewers(of: id)
      desktop(id, .revertFailed(text), now: now)
    case .stop, .start:
      // Not tried again at once: wait as after a failed start.
      guard var record = desktops[id] else { return }
      record.problem = text
      record.retryAt = now.adding(seconds: 5)
      desktops[id] = record
    }
  }

  // MARK: The steps of reconcile

  /// What policies do to desktops whose viewer left.
  mutating func applyTimers(now: Timestamp) {
    for record in desktops.sorted {
      if record.phase == .failed, let retryAt = record.retryAt, now >= retryAt {
        desktop(record.id, .retried, now: now)
      }
      guard let deadline = disconnectDeadline(of: record), now >= deadline else { continue }
      switch policies(of: record).onDisconnect {
      case .keep: break
      case .suspend:
        desktop(record.id, .suspendWanted, now: now)
        note(
          .sessionSuspended, "\(record.id) is suspended: nobody looks at it", user: record.owner,
          desktop: record.id, now: now)
      case .end:
        note(
          .sessionEndedByPolicy, "the session on \(record.id) ended after its viewer left",
          user: record.owner, desktop: record.id, now: now)
        endSession(on: record.id, telling: "Your session ended.", now: now)
      }
    }
  }

  func disconnectDeadline(of desktop: Desktop) -> Timestamp? {
    guard desktop.phase == .disconnected else { return nil }
    let policies = policies(of: desktop)
    switch policies.onDisconnect {
    case .keep: return nil
    // A desktop that does not run needs no suspending.
    case .suspend where desktop.power != .running: return nil
    case .suspend, .end: return desktop.since.adding(seconds: policies.disconnectSeconds)
    }
  }

  mutating func beginRecycling(now: Timestamp) {
    for record in desktops.sorted where record.phase == .dirty {
      if pools[record.pool]?.draining ?? true {
        desktop(record.id, .drained, now: now)
      } else {
        desktop(record.id, .recycleBegan, now: now)
        note(
          .desktopRecycling, "\(record.id) is reverted to its image", desktop: record.id, now: now)
      }
    }
  }

  /// Starts, stops and discards what the records ask for.
  mutating func operate(now: Timestamp) {
    for record in inOrderOfNeed {
      let operation = record.nextOperation(
        underWay: underWay[record.id], inSession: session(on: record.id) != nil,
        isPreparing: start(of: record.id)?.percent != nil, now: now)
      guard let operation else { continue }
      if operation == .discard, record.phase == .draining, record.isBlank {
        // It has neither VMM nor disk.
        desktops[record.id] = nil
        note(.desktopRemoved, "\(record.id) is deleted", desktop: record.id, now: now)
        continue
      }
      if operation == .start {
        guard mayBoot(record), mayStart(record) else { continue }
      }
      begin(operation, of: record, now: now)
    }
  }

  private mutating func begin(
    _ operation: Desktop.Operation, of record: Desktop, now: Timestamp
  ) {
    let id = record.id
    switch operation {
    case .start:
      guard let pool = pools[record.pool] else { return }
      starts[id] = nil
      let isNew = record.power == .off
      if isNew { desktops[id]?.memoryMiB = pool.memoryMiB }
      desktop(id, .startBegan, now: now)
      if isNew { startBegan(of: id) }
      guard let started = desktops[id] else { return }
      let request = started.launchRequest(in: pool)
      startsLimited(request)
      actions.append(.start(request))
    case .stop:
      actions.append(.stop(id, graceSeconds: policies(of: record).stopGraceSeconds))
    case .discard: actions.append(.discard(id))
    case .suspend: actions.append(.suspend(id))
    case .revert:
      guard let name = record.reverting else { return }
      actions.append(.revert(id, name))
    }
    underWay[id] = operation
  }
}

extension Desktop {
  /// Never started: nothing on the host belongs to it. A start that failed leaves files.
  var isBlank: Bool { power == .off && generation == 0 && !touched }

  func launchRequest(in pool: Pool) -> LaunchRequest {
    LaunchRequest(
      desktop: id, generation: generation, image: pool.image, memoryMiB: pool.memoryMiB,
      cpus: pool.cpus, diskMiB: pool.diskMiB, hardware: pool.hardware, disk: disk,
      diskLimits: pool.policies.diskLimits, resumes: saved, user: owner,
      keyboardLayout: pool.policies.keyboardLayout)
  }
}
