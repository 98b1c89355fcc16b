/// Everything the broker knows, and every decision it makes. Pure: events in,
/// actions out. `Broker` stores what changed before it acts.
public struct Site: Sendable {
  public internal(set) var pools = RecordTable<PoolName, Pool>()
  public internal(set) var desktops = RecordTable<DesktopID, Desktop>()
  public internal(set) var users = RecordTable<UserName, User>()
  public internal(set) var entitlements = RecordTable<Entitlement, Entitlement>()
  public internal(set) var sessions = RecordTable<SessionID, Session>()
  public internal(set) var tickets = RecordTable<TicketID, Ticket>()
  /// The latest decisions about each user, oldest first.
  public internal(set) var histories = RecordTable<UserName, [Decision]>()
  /// One row: numbers never used twice.
  public internal(set) var counters = RecordTable<String, Counters>()

  /// Viewers that are there now. Not stored.
  public internal(set) var viewers: [ConnectionID: Viewer] = [:]
  /// What is under way for each desktop. Not stored.
  public internal(set) var underWay: [DesktopID: Desktop.Operation] = [:]
  /// How far starts under way are known to be. Not stored.
  var starts: [DesktopID: StartProgress] = [:]
  var toldLimits: [DesktopID: ToldLimits] = [:]
  var toldPriorities: [DesktopID: ToldPriority] = [:]
  /// What the host has and what was promised of it. Not stored.
  public internal(set) var memory: MemoryBudget
  /// What boots. Not stored.
  var boots: BootBudget
  /// No desktop is touched before it is known which of them survived.
  public internal(set) var recovered = false

  /// Actions of the event at hand.
  var actions: [SiteAction] = []

  /// - Parameter bootsAtOnce: how many desktops may boot before another spare begins; `nil`
  ///   for any number.
  public init(memory policy: MemoryPolicy = MemoryPolicy(), bootsAtOnce: Int? = nil) {
    memory = MemoryBudget(policy: policy)
    boots = BootBudget(most: bootsAtOnce)
  }

  public static let historyLength = 40
}

/// Numbers that are given out once.
public struct Counters: Hashable, Codable, Sendable {
  public static let key = "counters"
  public var nextSession: UInt64 = 1
  public var nextTicket: UInt64 = 1

  public init() {}
}

/// A viewer that is there, and what it was shown.
public struct Viewer: Hashable, Sendable {
  public let id: ConnectionID
  public let login: Login
  /// Arrivals in order: who waits longest is served first.
  public let since: Timestamp
  /// The session it belongs to; `nil` while it waits for one.
  public internal(set) var session: SessionID?
  /// Whether it was told to attach to the desktop's present VMM.
  public internal(set) var attached = false
  public internal(set) var status: Status?
  /// The keyboard layout that it was last given.
  public internal(set) var keyboardLayout: String?
  /// Whether its waiting was already put on record: for a desktop, and for memory.
  var waitNoted = false
  var memoryWaitNoted = false

  /// What stands on its screen while there is no desktop on it.
  public struct Status: Hashable, Sendable {
    public let text: String
    /// 0...100, where something is measured.
    public let percent: Int?

    public init(_ text: String, percent: Int? = nil) {
      self.text = text
      self.percent = percent
    }
  }

  init(id: ConnectionID, login: Login, since: Timestamp) {
    self.id = id
    self.login = login
    self.since = since
  }
}

/// What happens to the site.
public enum SiteEvent: Sendable {
  /// What the launcher found after a start of `carreld`. First of all events.
  case recovered([Survivor])
  case viewerArrived(ConnectionID, Login)
  case viewerLeft(ConnectionID, reason: String)
  case powerRequested(ConnectionID, PowerRequest)
  case progressed(StartProgress)
  case started(DesktopID, generation: UInt64)
  /// The guest of a desktop that was started leaves the processors to others.
  case cameUp(DesktopID, generation: UInt64, StartKind)
  case startFailed(DesktopID, generation: UInt64, String)
  case stopped(DesktopID)
  case discarded(DesktopID)
  case suspended(DesktopID)
  case reverted(DesktopID, hasMemory: Bool)
  case limited(DesktopID, generation: UInt64)
  case limitFailed(DesktopID, generation: UInt64, String)
  /// A stop, discard, suspend or revert did not work.
  case operationFailed(DesktopID, Desktop.Operation, String)
  case exited(DesktopExit)
  case memory(MemoryReading)
  /// Time has passed.
  case tick
}

/// What the shell has to do, after the changes are stored, in this order.
public enum SiteAction: Hashable, Sendable {
  case start(LaunchRequest)
  case stop(DesktopID, graceSeconds: Int)
  case discard(DesktopID)
  case suspend(DesktopID)
  case revert(DesktopID, SnapshotName)
  case reset(DesktopID)
  case pressPowerButton(DesktopID)
  case limitDisk(DesktopID, generation: UInt64, DiskLimits)
  case prioritize(DesktopID, MemoryPriority)
  /// Before any viewer of that user is attached.
  case identify(DesktopID, DesktopIdentity)
  case setKeyboardLayout(ConnectionID, String)
  case attach(ConnectionID, DesktopID)
  case detach(ConnectionID)
  case showStatus(ConnectionID, Viewer.Status)
  case setName(ConnectionID, String)
  case close(ConnectionID, String)
  case report(Decision)
}

extension Site {
  /// Takes one event, decides, and says what to do. Never fails: an event about
  /// something that is gone changes nothing.
  public mutating func handle(_ event: SiteEvent, now: Timestamp) -> [SiteAction] {
    actions = []
    apply(event, now: now)
    reconcile(now: now)
    return takeActions()
  }

  mutating func takeActions() -> [SiteAction] {
    defer { actions = [] }
    return actions
  }

  private mutating func apply(_ event: SiteEvent, now: Timestamp) {
    switch event {
    case .recovered(let survivors): recover(survivors, now: now)
    case .viewerArrived(let id, let login):
      viewers[id] = Viewer(id: id, login: login, since: now)
    case .viewerLeft(let id, let reason): viewerLeft(id, reason: reason, now: now)
    case .powerRequested(let id, let request): powerRequested(id, request, now: now)
    case .progressed(let progress):
      // A start that was overtaken may report after a later one began.
      if underWay[progress.desktop] == .start,
        desktops[progress.desktop]?.generation == progress.generation
      {
        starts[progress.desktop] = progress
      }
    case .started(let id, let generation):
      finishStart(of: id, generation)
      desktop(id, .started(generation: generation), now: now)
      comesUp(id, generation: generation)
    case .cameUp(let id, let generation, let kind): cameUp(id, generation: generation, kind)
    case .startFailed(let id, let generation, let text):
      let isOvertaken = underWay[id] == .stop
      finishStart(of: id, generation)
      desktop(
        id,
        isOvertaken
          ? .startGivenUp(generation: generation) : .startFailed(generation: generation, text),
        now: now)
    case .stopped(let id):
      finish(.stop, of: id)
      // Of a start that it overtook no end is told.
      if let generation = desktops[id]?.generation {
        desktop(id, .startGivenUp(generation: generation), now: now)
      }
    case .discarded(let id): discarded(id, now: now)
    case .suspended(let id):
      finish(.suspend, of: id)
    case .reverted(let id, let hasMemory):
      finish(.revert, of: id)
      unattachViewers(of: id)
      desktop(id, .reverted(hasMemory: hasMemory), now: now)
    case .limited(let id, let generation): limited(id, generation: generation)
    case .limitFailed(let id, let generation, let text):
      limitFailed(id, generation: generation, text, now: now)
    case .operationFailed(let id, let operation, let text):
      operationFailed(id, operation, text, now: now)
    case .exited(let exit):
      desktop(exit.desktop, .exited(generation: exit.generation, exit.reason), now: now)
    case .memory(let reading): take(reading)
    case .tick: break
    }
  }

  /// Brings everything nearer to what is wanted. Safe at any time, any number of times.
  mutating func reconcile(now: Timestamp) {
    guard recovered else { return }
    expireTickets(now: now)
    applyTimers(now: now)
    beginRecycling(now: now)
    placeWaiting(now: now)
    relieveMemory(now: now)
    forgetBoots()
    sizePools(now: now)
    operate(now: now)
    limitDisks(now: now)
    prioritize()
    removeEmptyPools()
    serveViewers(now: now)
  }

  /// When `tick` is due next, if nothing else happens.
  public var nextDeadline: Timestamp? {
    var deadlines = tickets.values.map(\.expires)
    for desktop in desktops.values {
      if let retryAt = desktop.retryAt { deadlines.append(retryAt) }
      if let deadline = disconnectDeadline(of: desktop) { deadlines.append(deadline) }
    }
    return (deadlines + limitDeadlines).min()
  }

  // MARK: Small helpers

  mutating func finish(_ operation: Desktop.Operation, of id: DesktopID) {
    if operation == .start || operation == .discard { starts[id] = nil }
    if underWay[id] == operation { underWay[id] = nil }
  }

  /// A start that was overtaken may report after a later one began.
  private mutating func finishStart(of id: DesktopID, _ generation: UInt64) {
    if (desktops[id]?.generation ?? generation) == generation { finish(.start, of: id) }
  }

  mutating func note(
    _ reason: Reason, _ text: String, user: UserName? = nil, desktop: DesktopID? = nil,
    now: Timestamp
  ) {
    let decision = Decision(time: now, reason: reason, user: user, desktop: desktop, text: text)
    actions.append(.report(decision))
    guard let user, users[user] != nil else { return }
    let history = (histories[user] ?? []) + [decision]
    histories[user] = history.suffix(Self.historyLength).map { $0 }
  }

  /// How far the start of a desktop is, while there is one under way that tells.
  public func start(of desktop: DesktopID) -> StartProgress.Step? {
    underWay[desktop] == .start ? starts[desktop]?.step : nil
  }

  public func session(on desktop: DesktopID) -> Session? {
    sessions.values.first { $0.desktop == desktop }
  }

  public func viewer(of session: SessionID) -> Viewer? {
    viewers.values.first { $0.session == session }
  }

  public func isEntitled(_ user: UserName, to pool: PoolName) -> Bool {
    entitlements[Entitlement(user: user, pool: pool)] != nil
  }

  public func desktops(of pool: PoolName) -> [Desktop] {
    desktops.sorted.filter { $0.pool == pool }.sorted { $0.number < $1.number }
  }

  func policies(of desktop: Desktop) -> PoolPolicies {
    pools[desktop.pool]?.policies ?? PoolPolicies()
  }
}
