/// What a start of `carreld` makes of what the last one left.
extension Site {
  mutating func recover(_ survivors: [Survivor], now: Timestamp) {
    viewers = [:]
    underWay = [:]
    starts = [:]
    boots.comingUp = [:]
    toldLimits = [:]
    toldPriorities = [:]
    recovered = true
    let found = Dictionary(survivors.map { ($0.desktop, $0) }, uniquingKeysWith: { $1 })
    for record in desktops.sorted {
      // No viewer outlives carreld: the relay was in it.
      if record.phase == .connected { desktop(record.id, .viewerLeft, now: now) }
      recover(record.id, survivor: found[record.id], now: now)
    }
    for survivor in survivors where desktops[survivor.desktop] == nil {
      underWay[survivor.desktop] = .discard
      actions.append(.discard(survivor.desktop))
      note(
        .recoveredOrphan, "\(survivor.desktop) belongs to no pool and is removed",
        desktop: survivor.desktop, now: now)
    }
  }

  private mutating func recover(_ id: DesktopID, survivor: Survivor?, now: Timestamp) {
    guard var record = desktops[id] else { return }
    let known = survivor.map { $0.generation == record.generation } ?? false
    switch (survivor?.state, record.power) {
    case (.running, .starting) where known:
      desktop(id, .started(generation: record.generation), now: now)
      noteRunning(record, now: now)
    case (.running, _) where known:
      record.power = .running
      desktops[id] = record
      noteRunning(record, now: now)
    case (.running, _):
      // An earlier start's VMM: the decision to replace it was stored, the deed not done.
      record.power = .off
      desktops[id] = record
      underWay[id] = .stop
      actions.append(.stop(id, graceSeconds: 0))
    case (_, .starting) where !known:
      // Decided, never spawned.
      record.power = .off
      desktops[id] = record
    case (_, .off): break
    case (.ended(let reason), _):
      noteGone(record, reason ?? .crashed("the VMM is gone"), now: now)
    case (nil, _):
      noteGone(record, .crashed("the VMM is gone"), now: now)
    }
  }

  private mutating func noteRunning(_ record: Desktop, now: Timestamp) {
    note(
      .recoveredRunning, "\(record.id) ran on while carreld was away", user: record.owner,
      desktop: record.id, now: now)
  }

  private mutating func noteGone(_ record: Desktop, _ reason: ExitReason, now: Timestamp) {
    note(
      .recoveredGone, "\(record.id) ended while carreld was away: \(reason)", user: record.owner,
      desktop: record.id, now: now)
    desktop(record.id, .exited(generation: record.generation, reason), now: now)
  }
}
