/// One desktop and where it stands: the record that is stored, and its state machine.
///
/// ```
/// provisioning → clean → assigned → (connected ⇄ disconnected ⇄ suspended) → dirty → recycling → clean
/// ```
///
/// plus `failed` and `draining`. The phase says whose it is; `power` says whether a
/// VMM lives. What to do next is not remembered but derived (`nextOperation`), so
/// that a crash between decision and act loses nothing.
public struct Desktop: Hashable, Codable, Sendable {
  public enum Phase: String, Hashable, Codable, Sendable, CaseIterable {
    /// Being made: nobody has seen it. Has an owner when somebody waits for it.
    case provisioning
    /// Running, untouched, nobody's.
    case clean
    /// Somebody's, no viewer yet in this session (or no session: dedicated).
    case assigned
    case connected
    case disconnected
    case suspended
    /// A user is done with it and what they left is still there.
    case dirty
    /// Being reverted to its image.
    case recycling
    /// To be deleted, as soon as its session ends.
    case draining
    /// Given up, until somebody resets it or time passes.
    case failed
  }

  public enum Power: String, Hashable, Codable, Sendable {
    case off, starting, running
  }

  public let id: DesktopID
  public let pool: PoolName
  public let number: UInt64
  public internal(set) var phase: Phase = .provisioning
  public internal(set) var power: Power = .off
  /// Whose it is. Once set it is never another's without `discarded` in between.
  public internal(set) var owner: UserName?
  /// A user may have left something in it. Cleared by `discarded` alone.
  public internal(set) var touched = false
  /// Counts the starts of its VMM.
  public internal(set) var generation: UInt64 = 0
  /// What its VMM was started with; `nil` where an earlier Carrel started it.
  public internal(set) var memoryMiB: Int?
  /// Which disk the next start gives it.
  public internal(set) var disk: LaunchRequest.Disk = .fresh
  /// Whether a VMM should run.
  public internal(set) var wanted = true
  /// Switched off by the administrator: no spare, and not started by itself.
  public internal(set) var held = false
  /// Whether it was suspended to a file, from which the next start goes on.
  public internal(set) var saved = false
  /// The snapshot that it is to go on from.
  public internal(set) var reverting: SnapshotName?
  /// Failures in a row.
  public internal(set) var failures = 0
  /// Not to be tried again before.
  public internal(set) var retryAt: Timestamp?
  /// When its VMM last became ready.
  public internal(set) var runningSince: Timestamp?
  /// What last went wrong.
  public internal(set) var problem: String?
  /// When it came into this phase.
  public internal(set) var since: Timestamp

  public init(pool: PoolName, number: UInt64, owner: UserName? = nil, now: Timestamp) {
    id = DesktopID(pool: pool, number: number)
    self.pool = pool
    self.number = number
    self.owner = owner
    touched = owner != nil
    since = now
  }

  /// Nobody's and never touched: may become anybody's.
  public var isAssignable: Bool {
    owner == nil && !touched && !held
      && (phase == .clean || phase == .provisioning || phase == .recycling)
  }

  /// What is under way for a desktop; kept in memory only.
  public enum Operation: String, Hashable, Sendable {
    case start, stop, discard, suspend, revert
  }

  private enum CodingKeys: String, CodingKey {
    case id, pool, number, phase, power, owner, touched, generation, memoryMiB, disk, wanted
    case held
    // Before desktops were suspended to files, those that stood still had this.
    case saved = "paused"
    case reverting, failures, retryAt, runningSince, problem, since
  }
}

/// What happens to a desktop.
public enum DesktopEvent: Hashable, Sendable {
  case assigned(UserName)
  case viewerAttached
  case viewerLeft
  case suspendWanted
  /// Somebody wants to see it, or will.
  case resumeWanted
  case revertWanted(SnapshotName)
  /// Its VMM is gone, and its next start goes on from the snapshot, or boots.
  case reverted(hasMemory: Bool)
  case revertFailed(String)
  /// The session is over; `keep` for desktops that stay their owner's.
  case sessionEnded(keep: Bool)
  /// Taken from its owner.
  case released
  case drained
  case recycleBegan
  case discarded
  case discardFailed(String)
  /// A VMM is about to be started.
  case startBegan
  case started(generation: UInt64)
  case startFailed(generation: UInt64, String)
  /// Somebody wanted it off before there was a VMM.
  case startGivenUp(generation: UInt64)
  case exited(generation: UInt64, ExitReason)
  /// Switch on (and stay) or off (and stay).
  case powerWanted(Bool, held: Bool)
  /// Try again after failures.
  case retried
}

/// What a desktop asks of the site around it.
public enum DesktopEffect: Hashable, Sendable {
  /// Ready for a viewer.
  case ready
  /// The guest switched itself off; its session is over.
  case guestShutDown
  /// The VMM died under its owner; the pool's policy decides.
  case crashed(String)
  /// A start failed; another follows at `retryAt`.
  case retrying(String)
  /// Too many failures: it waits in `failed`.
  case gaveUp(String)
  /// Too many failures to go on from what it was saved to, which is kept.
  case sleepsOn(String)
}

extension Desktop {
  /// Failures further apart than this do not add up.
  static let stableSeconds = 60
  /// A failed desktop is tried again after this long.
  static let failedRetrySeconds = 300

  /// Applies an event. One that does not fit the present phase changes nothing:
  /// results arrive late, after decisions that overtook them.
  public mutating func handle(
    _ event: DesktopEvent, attempts: Int, now: Timestamp
  ) -> [DesktopEffect] {
    let before = phase
    let effects = apply(event, attempts: attempts, now: now)
    if phase != before { since = now }
    return effects
  }

  private mutating func apply(
    _ event: DesktopEvent, attempts: Int, now: Timestamp
  ) -> [DesktopEffect] {
    switch event {
    case .assigned(let user): assign(user)
    case .viewerAttached, .viewerLeft, .suspendWanted, .resumeWanted: moveSession(event)
    case .revertWanted(let name): wantRevert(name)
    case .reverted(let hasMemory): revertDone(hasMemory: hasMemory)
    case .revertFailed(let text):
      reverting = nil
      problem = text
    case .sessionEnded(let keep): endSession(keep: keep)
    case .released: if owner != nil, phase != .draining { becomeDirty() }
    case .drained: drain()
    case .recycleBegan: if phase == .dirty { phase = .recycling }
    case .discarded: discardDone()
    case .discardFailed(let text):
      return fail(text, attempts: attempts, now: now, from: [.recycling, .draining])
    case .startBegan: beginStart()
    case .started(let generation): return started(generation, now: now)
    case .startFailed(let generation, let text):
      guard generation == self.generation, power == .starting else { return [] }
      power = .off
      return fail(text, attempts: attempts, now: now, from: Set(Phase.allCases))
    case .startGivenUp(let generation):
      if generation == self.generation, power == .starting { power = .off }
    case .exited(let generation, let reason):
      return exited(generation, reason, attempts: attempts, now: now)
    case .powerWanted(let on, let held): wantPower(on, held: held)
    case .retried: retry()
    }
    return []
  }

  // MARK: Ownership

  private mutating func assign(_ user: UserName) {
    guard isAssignable else { return }
    owner = user
    touched = true
    wanted = true
    forgive()
    // Recycled but not yet started again is the same as being made.
    phase = phase == .clean ? .assigned : .provisioning
  }

  private mutating func moveSession(_ event: DesktopEvent) {
    switch (event, phase) {
    case (.viewerAttached, .assigned), (.viewerAttached, .disconnected),
      (.viewerAttached, .suspended):
      phase = .connected
    case (.viewerLeft, .connected), (.viewerLeft, .assigned):
      phase = .disconnected
    case (.suspendWanted, .disconnected), (.suspendWanted, .assigned):
      phase = .suspended
    case (.resumeWanted, .suspended):
      phase = .disconnected
    default: break
    }
  }

  private mutating func endSession(keep: Bool) {
    switch phase {
    case .assigned, .connected, .disconnected, .suspended, .provisioning:
      guard owner != nil else { return }
      if keep {
        if phase != .provisioning { phase = .assigned }
      } else {
        becomeDirty()
      }
    case .failed:
      if !keep, owner != nil { becomeDirty() }
    case .clean, .dirty, .recycling, .draining: break
    }
  }

  private mutating func becomeDirty() {
    phase = .dirty
    saved = false
    reverting = nil
    owner = nil
    held = false
    forgive()
  }

  /// What failed before must not keep it from going.
  private mutating func drain() {
    guard phase != .draining else { return }
    phase = .draining
    reverting = nil
    forgive()
  }

  /// Nothing of the past is left; the only way out of `touched`.
  private mutating func discardDone() {
    power = .off
    saved = false
    runningSince = nil
    guard phase == .recycling || phase == .draining else { return }
    touched = false
    disk = .fresh
    wanted = true
    forgive()
  }

  // MARK: Power

  private mutating func beginStart() {
    power = .starting
    generation &+= 1
    retryAt = nil
  }

  private mutating func started(_ generation: UInt64, now: Timestamp) -> [DesktopEffect] {
    guard generation == self.generation, power == .starting else { return [] }
    power = .running
    saved = false
    disk = .keep
    runningSince = now
    problem = nil
    switch phase {
    case .provisioning, .recycling:
      phase = owner == nil ? .clean : .assigned
    default: break
    }
    return [.ready]
  }

  private mutating func exited(
    _ generation: UInt64, _ reason: ExitReason, attempts: Int, now: Timestamp
  ) -> [DesktopEffect] {
    guard generation == self.generation, power != .off else { return [] }
    power = .off
    // Ended for that, or about to be: what it left does not matter any more.
    if reverting != nil { return [] }
    if let runningSince, now >= runningSince.adding(seconds: Self.stableSeconds) { failures = 0 }
    runningSince = nil
    switch phase {
    case .dirty, .recycling, .draining: return []
    case .clean, .provisioning:
      if owner == nil { disk = .fresh }
      guard wanted else { return [] }
      phase = .provisioning
      return fail(reason.description, attempts: attempts, now: now, from: Set(Phase.allCases))
    case .assigned, .connected, .disconnected, .suspended, .failed:
      guard wanted else { return [] }
      if reason == .suspended {
        saved = true
        return []
      }
      if reason == .guestShutdown {
        wanted = false
        return [.guestShutDown]
      }
      // One that did not come so far as to go on from its file did not crash.
      if saved {
        return fail(reason.description, attempts: attempts, now: now, from: Set(Phase.allCases))
      }
      if phase == .suspended { phase = .disconnected }
      let effects = fail(
        reason.description, attempts: attempts, now: now, from: Set(Phase.allCases))
      // Somebody may be waiting: the first time there is no reason to.
      if failures == 1, phase != .failed { retryAt = nil }
      return phase == .failed ? effects : [.crashed(reason.description)]
    }
  }

  private mutating func wantRevert(_ name: SnapshotName) {
    guard ![.dirty, .recycling, .draining].contains(phase) else { return }
    wantPower(true, held: false)
    reverting = name
  }

  private mutating func revertDone(hasMemory: Bool) {
    guard reverting != nil else { return }
    reverting = nil
    power = .off
    runningSince = nil
    saved = hasMemory
    disk = .keep
    problem = nil
    forgive()
  }

  private mutating func wantPower(_ on: Bool, held: Bool) {
    wanted = on
    self.held = held
    if !on { saved = false }
    if phase == .suspended { phase = .disconnected }
    if on { forgive() }
    if on, phase == .failed { retry() }
  }

  // MARK: Failure

  private mutating func fail(
    _ text: String, attempts: Int, now: Timestamp, from phases: Set<Phase>
  ) -> [DesktopEffect] {
    guard phases.contains(phase) else { return [] }
    problem = text
    failures += 1
    if failures < attempts {
      retryAt = now.adding(seconds: 1 << min(failures - 1, 6))
      return [.retrying(text)]
    }
    if saved, owner != nil, Self.sessionPhases.contains(phase) {
      // What its user did is in that file alone: whoever can mend it finds it there.
      forgive()
      phase = .suspended
      return [.sleepsOn(text)]
    }
    retryAt = now.adding(seconds: Self.failedRetrySeconds)
    if phase != .draining { phase = .failed }
    return [.gaveUp(text)]
  }

  private static let sessionPhases: Set<Phase> = [
    .assigned, .connected, .disconnected, .suspended,
  ]

  private mutating func retry() {
    forgive()
    guard phase == .failed else { return }
    wanted = true
    if owner != nil {
      phase = .assigned
    } else {
      phase = touched ? .dirty : .provisioning
    }
  }

  private mutating func forgive() {
    failures = 0
    retryAt = nil
  }

  // MARK: What to do

  /// The operation that brings it nearer to what is wanted, if any. `discard` may
  /// overtake a start that is under way, and so may `stop` while there is no VMM that would
  /// lose something; nothing else may overtake anything.
  ///
  /// - Parameter isPreparing: a start is at the desktop's disk.
  public func nextOperation(
    underWay: Operation?, inSession: Bool, isPreparing: Bool = false, now: Timestamp
  ) -> Operation? {
    if let retryAt, now < retryAt { return nil }
    let mustDiscard =
      (phase == .recycling && touched) || (phase == .draining && !inSession)
    if mustDiscard { return underWay == nil || underWay == .start ? .discard : nil }
    if underWay == .start, isPreparing, !wanted { return .stop }
    guard underWay == nil else { return nil }
    if reverting != nil { return .revert }
    switch power {
    case .off:
      let rests = phase == .suspended && saved
      let startable = wanted && !rests && phase != .dirty && phase != .failed
      return startable ? .start : nil
    case .starting: return wanted ? .start : .stop
    case .running:
      if !wanted { return .stop }
      return phase == .suspended ? .suspend : nil
    }
  }
}
