/// Viewers, sessions, and who gets which desktop.
extension Site {
  // MARK: Coming and going

  mutating func viewerLeft(_ id: ConnectionID, reason: String, now: Timestamp) {
    guard let viewer = viewers.removeValue(forKey: id) else { return }
    guard let session = viewer.session, var record = sessions[session] else { return }
    record.changed = now
    sessions[session] = record
    desktop(record.desktop, .viewerLeft, now: now)
    note(
      .sessionDisconnected, "left \(record.desktop): \(reason)", user: record.user,
      desktop: record.desktop, now: now)
  }

  mutating func powerRequested(_ id: ConnectionID, _ request: PowerRequest, now: Timestamp) {
    guard let session = viewers[id]?.session, let record = sessions[session],
      let desktop = desktops[record.desktop], desktop.power == .running
    else { return }
    switch request {
    case .shutdown: actions.append(.pressPowerButton(desktop.id))
    case .reboot, .reset:
      actions.append(.reset(desktop.id))
      note(
        .desktopReset, "\(desktop.id) was reset by its viewer", user: record.user,
        desktop: desktop.id, now: now)
    }
  }

  /// Ends the session on a desktop, if there is one, and says goodbye to its viewer.
  /// A floating desktop is dirty from here on; others stay their owner's.
  mutating func endSession(on id: DesktopID, telling text: String, now: Timestamp) {
    guard let record = desktops[id] else { return }
    if let session = session(on: id) {
      sessions[session.id] = nil
      for viewer in viewers.values.sorted(by: { $0.id < $1.id })
      where viewer.session == session.id {
        viewers[viewer.id] = nil
        actions.append(.close(viewer.id, text))
      }
    }
    let keep = pools[record.pool]?.kind.keepsDesktops ?? false
    desktop(id, .sessionEnded(keep: keep), now: now)
  }

  // MARK: Placement

  /// Gives every viewer without a session a desktop, or the reason why not. First
  /// come, first served.
  mutating func placeWaiting(now: Timestamp) {
    let waiting = viewers.values.filter { $0.session == nil }
      .sorted { ($0.since, $0.id) < ($1.since, $1.id) }
    for viewer in waiting { place(viewer, now: now) }
  }

  private mutating func place(_ viewer: Viewer, now: Timestamp) {
    let user = viewer.login.user
    switch placement(of: viewer.login) {
    case .existing(let id): reconnect(viewer, to: id, now: now)
    case .assign(let id, let reason):
      desktop(id, .assigned(user), now: now)
      // A proof against a mistake above: only the owner is ever let in.
      guard desktops[id]?.owner == user else { return }
      note(reason, "\(id) is \(user)'s now", user: user, desktop: id, now: now)
      openSession(viewer, on: id, now: now)
    case .create(let pool):
      guard let id = createDesktop(in: pool, owner: user, now: now) else { return }
      note(
        .loginStartedDesktop, "\(id) is started for \(user)", user: user, desktop: id, now: now)
      openSession(viewer, on: id, now: now)
    case .wait(let pool):
      guard !viewer.waitNoted else { return }
      viewers[viewer.id]?.waitNoted = true
      note(
        .loginWaitingPoolFull, "all desktops of pool \(pool) are in use; \(user) waits",
        user: user, now: now)
      retryFailed(in: pool, now: now)
    case .refuse(let reason, let text):
      viewers[viewer.id] = nil
      note(reason, text, user: user, now: now)
      actions.append(.close(viewer.id, text))
    }
  }

  /// Somebody waits: a desktop that was given up may get another chance.
  private mutating func retryFailed(in pool: PoolName, now: Timestamp) {
    for record in desktops(of: pool) where record.phase == .failed && record.owner == nil {
      desktop(record.id, .retried, now: now)
    }
  }

  private mutating func reconnect(_ viewer: Viewer, to id: DesktopID, now: Timestamp) {
    guard let record = desktops[id] else { return }
    let user = viewer.login.user
    if let session = session(on: id), let older = self.viewer(of: session.id) {
      if policies(of: record).takeover == .refuse {
        viewers[viewer.id] = nil
        let text = "Your desktop is open elsewhere (\(older.login.peer)). Close it there first."
        note(.loginRefusedTakeover, text, user: user, desktop: id, now: now)
        actions.append(.close(viewer.id, text))
        return
      }
      viewers[older.id] = nil
      actions.append(.close(older.id, "Your desktop was opened from \(viewer.login.peer)."))
      desktop(id, .viewerLeft, now: now)
      note(
        .sessionTakenOver, "\(viewer.login.peer) took \(id) over from \(older.login.peer)",
        user: user, desktop: id, now: now)
    }
    if !record.wanted || record.phase == .failed {
      desktop(id, .powerWanted(true, held: false), now: now)
    }
    desktop(id, .resumeWanted, now: now)
    note(
      .loginExistingDesktop, "\(user) has \(id) already", user: user, desktop: id, now: now)
    openSession(viewer, on: id, now: now)
  }

  /// Joins a viewer to the desktop's session, beginning one if there is none.
  private mutating func openSession(_ viewer: Viewer, on id: DesktopID, now: Timestamp) {
    var session: Session
    if let present = self.session(on: id) {
      session = present
      session.peer = viewer.login.peer.text
      session.changed = now
    } else {
      var numbers = counters[Counters.key] ?? Counters()
      session = Session(
        id: SessionID(rawValue: "s\(numbers.nextSession)"), user: viewer.login.user, desktop: id,
        started: now, peer: viewer.login.peer.text)
      numbers.nextSession += 1
      counters[Counters.key] = numbers
    }
    sessions[session.id] = session
    viewers[viewer.id]?.session = session.id
    actions.append(.setName(viewer.id, id.rawValue))
  }

  /// Attaches viewers whose desktop runs; tells the others what they wait for.
  mutating func serveViewers(now: Timestamp) {
    for viewer in viewers.values.sorted(by: { $0.id < $1.id }) {
      guard let session = viewer.session.flatMap({ sessions[$0] }),
        let record = desktops[session.desktop]
      else {
        show(Viewer.Status(waitingText(for: viewer)), to: viewer)
        continue
      }
      setKeyboardLayout(of: viewer, at: record)
      if record.power == .running {
        attach(viewer, to: record, now: now)
      } else if memory.held.contains(record.id) {
        waitForMemory(viewer, record, now: now)
      } else {
        show(record.status(after: starts[record.id]?.step), to: viewer)
      }
    }
  }

  private mutating func waitForMemory(_ viewer: Viewer, _ record: Desktop, now: Timestamp) {
    show(
      Viewer.Status("The server is short of memory. \(record.id) starts once there is some."),
      to: viewer)
    guard !viewer.memoryWaitNoted else { return }
    viewers[viewer.id]?.memoryWaitNoted = true
    note(
      .loginWaitingMemory, "\(record.id) is not started yet: the host has no memory for it",
      user: viewer.login.user, desktop: record.id, now: now)
  }

  private mutating func attach(_ viewer: Viewer, to record: Desktop, now: Timestamp) {
    guard !viewer.attached else { return }
    viewers[viewer.id]?.attached = true
    viewers[viewer.id]?.status = nil
    let phase = record.phase
    desktop(record.id, .viewerAttached, now: now)
    // A spare was started for nobody, and what was told before may have been lost.
    identify(record, for: viewer)
    actions.append(.attach(viewer.id, record.id))
    if phase != .connected {
      note(
        .sessionConnected, "connected to \(record.id) from \(viewer.login.peer)",
        user: viewer.login.user, desktop: record.id, now: now)
    }
  }

  private mutating func identify(_ record: Desktop, for viewer: Viewer) {
    let identity = DesktopIdentity(
      user: viewer.login.user, keyboardLayout: policies(of: record).keyboardLayout)
    actions.append(.identify(record.id, identity))
  }

  private mutating func setKeyboardLayout(of viewer: Viewer, at record: Desktop) {
    let layout = policies(of: record).keyboardLayout
    guard viewer.keyboardLayout != layout else { return }
    viewers[viewer.id]?.keyboardLayout = layout
    actions.append(.setKeyboardLayout(viewer.id, layout))
    // Characters become keys by this layout from now on: the guest must read them so.
    if viewer.attached { identify(record, for: viewer) }
  }

  private mutating func show(_ status: Viewer.Status, to viewer: Viewer) {
    guard viewer.status != status else { return }
    viewers[viewer.id]?.status = status
    actions.append(.showStatus(viewer.id, status))
  }

  private func waitingText(for viewer: Viewer) -> String {
    let before = viewers.values.filter {
      $0.session == nil && ($0.since, $0.id) < (viewer.since, viewer.id)
    }.count
    return before == 0
      ? "All desktops are in use. You are next."
      : "All desktops are in use. \(before) before you."
  }
}

extension Desktop {
  /// What is shown to whom it is started for. A percentage only of what is measured.
  func status(after step: StartProgress.Step?) -> Viewer.Status {
    let percent = step?.percent
    if failures > 0 {
      // It has a disk of its own once it has run.
      return Viewer.Status(
        disk == .keep
          ? "\(id) stopped unexpectedly; starting it again" : "\(id) did not start; trying again",
        percent: percent)
    }
    let text =
      switch step {
      case .copyingDisk: "Copying the disk of \(id)"
      case .mergingDisk: "Merging the disk of \(id)"
      case .switchingOn: saved ? "Waking \(id)" : "Switching \(id) on"
      case nil:
        phase == .recycling ? "Preparing \(id)" : saved ? "Waking \(id)" : "Starting \(id)"
      }
    return Viewer.Status(text, percent: percent)
  }
}
