/// Who may have memory, and who gives it back when there is little.
extension Site {
  private static let suspendRetrySeconds = 60

  // MARK: The account

  /// What desktops that run or start may take together.
  public var promisedMiB: Int {
    desktops.values.reduce(0) { $0 + ($1.power == .off ? 0 : costMiB(of: $1)) }
  }

  /// What all pools' desktops would take together.
  public var memoryOfFullPoolsMiB: Int {
    pools.values.reduce(0) {
      let (all, tooMany) = costMiB(in: $1).multipliedReportingOverflow(by: $1.size)
      let (sum, tooMuch) = $0.addingReportingOverflow(all)
      return tooMany || tooMuch ? .max : sum
    }
  }

  /// Of one that runs: its pool may have changed since it was started.
  private func costMiB(of record: Desktop) -> Int {
    (record.memoryMiB ?? pools[record.pool]?.memoryMiB ?? 0) + MemoryBudget.overheadMiB
  }

  private func costMiB(in pool: Pool) -> Int { pool.memoryMiB + MemoryBudget.overheadMiB }

  /// No desktop of more than the host may ever promise would start, and no spare of more than is
  /// left of that by what is kept for logins.
  func checkMemory(of pool: Pool) throws(BrokerError) {
    guard memory.reading != nil else { return }
    let cost = costMiB(in: pool)
    let desktop = "a desktop of \(pool.memoryMiB) MiB takes \(cost) MiB"
    guard cost <= memory.limitMiB else {
      throw BrokerError(
        .invalid,
        "pool '\(pool.name)': \(desktop), and all that this host may promise are "
          + "\(memory.limitMiB) MiB: give --memory less")
    }
    guard pool.spares == 0 || cost <= memory.spareLimitMiB else {
      throw BrokerError(
        .invalid,
        "pool '\(pool.name)': \(desktop), and all that spares may have of this host are "
          + "\(memory.spareLimitMiB) MiB, as \(memory.reserveMiB) MiB are kept for logins "
          + "(memory.reserve_mib): give --memory less, or --spares 0")
    }
  }

  /// What its start will take.
  private func startCostMiB(of record: Desktop) -> Int {
    (pools[record.pool]?.memoryMiB ?? 0) + MemoryBudget.overheadMiB
  }

  mutating func take(_ reading: MemoryReading) {
    // What starts has not touched its memory yet.
    let begun = desktops.values.reduce(0) {
      $0 + ($1.power == .starting ? costMiB(of: $1) : 0)
    }
    memory.take(reading, begunMiB: begun, isFresh: !isGivingUp)
  }

  /// Whether a reading has to go through `handle`: there is one every second.
  public func heeds(_ reading: MemoryReading) -> Bool { memory.heeds(reading) }

  // MARK: Who may start

  /// Who sits before which desktop, or waits for it.
  private var viewersByDesktop: [DesktopID: Viewer] {
    viewers.values.reduce(into: [:]) { found, viewer in
      guard let session = viewer.session.flatMap({ sessions[$0] }) else { return }
      found[session.desktop] = viewer
    }
  }

  /// Those that somebody waits for first, in the order in which they came.
  var inOrderOfNeed: [Desktop] {
    guard memory.reading != nil else { return desktops.sorted }
    let viewers = viewersByDesktop
    let all = desktops.sorted.map { (record: $0, viewer: viewers[$0.id]) }
    let awaited = all.filter { $0.viewer != nil }.sorted {
      guard let left = $0.viewer, let right = $1.viewer else { return false }
      return (left.since, left.id) < (right.since, right.id)
    }
    let others = all.filter { $0.viewer == nil }.map(\.record)
    return awaited.map(\.record) + others.filter { $0.owner != nil }
      + others.filter { $0.owner == nil }
  }

  /// Whether there is memory for a desktop to be started now; it is put down if not.
  mutating func mayStart(_ record: Desktop) -> Bool {
    guard memory.reading != nil, record.power == .off else { return true }
    let cost = startCostMiB(of: record)
    let may =
      viewersByDesktop[record.id] != nil
      ? shortageMiB(forStarting: cost) <= 0 || isShortOnlyInMeasure(cost) && !canMakeRoom
      : hasRoom(forSpares: cost)
    if !may { memory.held.insert(record.id) }
    return may
  }

  /// Why a desktop that is to run is not started yet, if that is for want of memory: what its
  /// start takes, and what keeps it from it.
  public func memoryWait(of id: DesktopID) -> String? {
    guard let record = desktops[id], memory.held.contains(id), record.power == .off else {
      return nil
    }
    let cost = startCostMiB(of: record)
    let isAwaited = viewersByDesktop[id] != nil
    return "it needs \(cost) MiB of memory, and \(memory.want(of: cost, promisedMiB, isAwaited))"
  }

  mutating func startBegan(of id: DesktopID) {
    guard let record = desktops[id] else { return }
    memory.begunMiB += costMiB(of: record)
  }

  /// What is missing for a desktop that somebody waits for.
  private func shortageMiB(forStarting cost: Int) -> Int {
    if memory.state == .critical { return max(cost, 1) }
    return max(
      promisedMiB + cost - memory.limitMiB, memory.criticalMiB + cost - memory.leftMiB)
  }

  /// It would have to use all that it may before there were none left; nobody else could give
  /// any, so that is what is counted on.
  private func isShortOnlyInMeasure(_ cost: Int) -> Bool {
    memory.state != .critical && promisedMiB + cost <= memory.limitMiB
  }

  /// Spares, and desktops that nobody looks at, keep away from the reserve and the watermark,
  /// also when they use all that they may.
  private func hasRoom(forSpares cost: Int) -> Bool {
    memory.state == .ok && promisedMiB + cost <= memory.spareLimitMiB
      && memory.leftMiB - cost >= memory.watermarkMiB
  }

  /// Whether another spare of the pool could be started, after those that are about to be.
  mutating func hasRoom(forSpareOf pool: Pool) -> Bool {
    guard memory.reading != nil else { return true }
    let has = hasRoom(forSpares: pendingMiB + costMiB(in: pool))
    if !has { memory.withholdsSpares = true }
    return has
  }

  /// What desktops take that are about to be started.
  private var pendingMiB: Int {
    let viewers = viewersByDesktop
    return desktops.values.reduce(0) {
      let starts =
        $1.power == .off && $1.wanted && ($1.countsAsSpare || viewers[$1.id] != nil)
      return $0 + (starts ? startCostMiB(of: $1) : 0)
    }
  }

  /// Why a pool has fewer spares than it is to have, if that is for want of memory.
  public func spareWait(of pool: Pool) -> String? {
    guard memory.reading != nil, !pool.draining else { return nil }
    let all = desktops(of: pool.name)
    let spares = all.filter(\.countsAsSpare)
    let held = spares.first { memory.held.contains($0.id) && $0.power == .off }
    if let held, let reason = memoryWait(of: held.id) { return "spare \(held.id) waits: \(reason)" }
    let missing = min(pool.spares - spares.count, pool.size - all.count)
    let cost = costMiB(in: pool)
    guard missing > 0, !hasRoom(forSpares: pendingMiB + cost) else { return nil }
    return "\(missing) of \(pool.spares) spares wait: one needs \(cost) MiB of memory, and "
      + memory.want(of: pendingMiB + cost, promisedMiB, false)
  }

  /// Whether a login that comes to this would have to wait for memory.
  public func isShortOfMemory(for placement: Placement) -> Bool {
    guard memory.reading != nil else { return false }
    let cost: Int
    switch placement {
    case .create(let name):
      guard let pool = pools[name] else { return false }
      cost = costMiB(in: pool)
    case .existing(let id), .assign(let id, _):
      guard let record = desktops[id], record.power == .off else { return false }
      cost = startCostMiB(of: record)
    case .wait, .refuse: return false
    }
    guard memory.state != .critical else { return true }
    let givable = (spareVictims + idleVictims).reduce(0) { $0 + costMiB(of: $1) }
    return promisedMiB - givable + cost > memory.limitMiB
  }

  // MARK: Who gives it back

  /// Spares, newest first: the older ones have had time to become ready.
  private var spareVictims: [Desktop] {
    desktops.sorted.filter {
      guard $0.owner == nil, !$0.touched, $0.power != .off else { return false }
      guard underWay[$0.id] == nil || underWay[$0.id] == .start else { return false }
      return [.clean, .provisioning, .recycling].contains($0.phase)
    }.sorted { left, right in
      let (earlier, later) = (left.runningSince, right.runningSince)
      guard earlier != later else { return left.number > right.number }
      // What still starts is the newest of all.
      guard let earlier else { return true }
      return later.map { earlier > $0 } ?? false
    }
  }

  /// Desktops that nobody looks at, for the longest time first.
  private var idleVictims: [Desktop] {
    let viewers = viewersByDesktop
    return desktops.values.filter { record in
      guard record.owner != nil, record.power == .running, record.wanted,
        record.reverting == nil, underWay[record.id] == nil
      else { return false }
      return (record.phase == .disconnected || record.phase == .assigned)
        && viewers[record.id] == nil && memory.unsuspendable[record.id] == nil
    }.sorted { ($0.since, $0.id) < ($1.since, $1.id) }
  }

  /// On their way out, so that what they have comes back by itself.
  private var leaving: [Desktop] { desktops.values.filter(isLeaving) }

  private func isLeaving(_ record: Desktop) -> Bool {
    // One that could not be ended is tried again later, and not to be counted on.
    guard record.power != .off, underWay[record.id] != nil || record.retryAt == nil else {
      return false
    }
    switch record.phase {
    case .draining: return session(on: record.id) == nil
    case .suspended, .dirty: return true
    case .recycling: return record.touched
    default: return !record.wanted
    }
  }

  /// Whether something is still being discarded or suspended for want of memory.
  private var isGivingUp: Bool {
    memory.givenUp.contains { desktops[$0].map(isLeaving) ?? false }
  }

  private var isSuspending: Bool {
    desktops.values.contains { $0.phase == .suspended && $0.power == .running }
  }

  private var canMakeRoom: Bool {
    !leaving.isEmpty || !spareVictims.isEmpty || !idleVictims.isEmpty
  }

  /// Has spares and idle desktops give back what those who are here need.
  mutating func relieveMemory(now: Timestamp) {
    memory.held = []
    memory.withholdsSpares = false
    guard memory.reading != nil else { return }
    memory.unsuspendable = memory.unsuspendable.filter { now < $0.value }
    makeRoomForLogins(now: now)
    guard memory.state != .ok, memory.isFresh, !isGivingUp else { return }
    memory.givenUp = []
    // One after the other, each seen in a reading before the next: a file is written for
    // each idle one, and there may be enough before the last.
    let spares = spareVictims
    if spares.isEmpty {
      guard let idle = idleVictims.first else { return }
      suspendForMemory(idle, "memory is short", now: now)
    } else {
      for spare in spares.prefix(memory.state == .critical ? spares.count : 1) {
        discardForMemory(spare, "memory is short", now: now)
      }
    }
    memory.isFresh = false
  }

  private mutating func makeRoomForLogins(now: Timestamp) {
    let viewers = viewersByDesktop
    let costs = desktops.values.filter {
      viewers[$0.id] != nil && awaitsStart($0, now: now)
    }.map(startCostMiB(of:))
    guard let first = costs.max() else { return }
    // What several need is found for one after the other; the largest fits then.
    var missing = shortageMiB(forStarting: first)
    missing -= leaving.reduce(0) { $0 + costMiB(of: $1) }
    for spare in spareVictims where missing > 0 {
      missing -= costMiB(of: spare)
      discardForMemory(spare, "a user needs its memory", now: now)
    }
    guard missing > 0, !isSuspending, let idle = idleVictims.first else { return }
    suspendForMemory(idle, "a user needs its memory", now: now)
  }

  private func awaitsStart(_ record: Desktop, now: Timestamp) -> Bool {
    guard record.power == .off else { return false }
    return record.nextOperation(underWay: underWay[record.id], inSession: true, now: now) == .start
  }

  private mutating func discardForMemory(_ record: Desktop, _ why: String, now: Timestamp) {
    desktop(record.id, .drained, now: now)
    memory.givenUp.insert(record.id)
    note(
      .desktopDiscardedMemory, "the spare \(record.id) is given up: \(why)", desktop: record.id,
      now: now)
  }

  private mutating func suspendForMemory(_ record: Desktop, _ why: String, now: Timestamp) {
    desktop(record.id, .suspendWanted, now: now)
    memory.givenUp.insert(record.id)
    note(
      .desktopSuspendedMemory, "\(record.id) is suspended: \(why) and nobody looks at it",
      user: record.owner, desktop: record.id, now: now)
  }

  /// It stays as it is for a while.
  mutating func suspendFailed(_ id: DesktopID, now: Timestamp) {
    memory.unsuspendable[id] = now.adding(seconds: Self.suspendRetrySeconds)
  }

  // MARK: Should it not be enough

  /// Has the kernel know whom to end first.
  mutating func prioritize() {
    toldPriorities = toldPriorities.filter { desktops[$0.key]?.power == .running }
    let viewers = viewersByDesktop
    for record in desktops.sorted where record.power == .running {
      let priority: MemoryPriority =
        record.owner == nil ? .spare : viewers[record.id] == nil ? .idle : .inUse
      let told = ToldPriority(generation: record.generation, priority: priority)
      guard toldPriorities[record.id] != told else { continue }
      toldPriorities[record.id] = told
      actions.append(.prioritize(record.id, priority))
    }
  }
}

/// What a VMM was last given. Not stored: one that ran on is told anew.
struct ToldPriority: Hashable, Sendable {
  let generation: UInt64
  let priority: MemoryPriority
}
