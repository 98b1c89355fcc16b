import Brokering
import Foundation
import Testing

struct JSONCoding: RecordCoding {
  func encode<Record: Encodable>(_ record: Record) throws -> [UInt8] {
    [UInt8](try JSONEncoder().encode(record))
  }

  func decode<Record: Decodable>(_ type: Record.Type, from bytes: [UInt8]) throws -> Record {
    try JSONDecoder().decode(type, from: Data(bytes))
  }
}

/// A host around a `Site`: its store, VMMs and viewers, with the truth about who
/// touched what, which the site is not told.
struct World {
  struct VMM {
    var generation: UInt64
    var limits = DiskLimits()
    var memoryMiB = 512
    var priority: MemoryPriority?
    var running = true
  }

  var site: Site
  var now = Timestamp(milliseconds: 1_000_000)
  /// What the store holds.
  var stored: [String: [UInt8]] = [:]
  var vmms: [DesktopID: VMM] = [:]
  /// Whose traces are on a desktop's disk or in its memory.
  var traces: [DesktopID: Set<UserName>] = [:]
  /// Launcher calls under way.
  var calls: [SiteAction] = []
  /// Starts that a discard or stop overtook: they throw.
  private var overtaken: Set<LaunchRequest> = []
  /// What each open viewer shows, and whose it is.
  var open: [ConnectionID: Login] = [:]
  var shown: [ConnectionID: DesktopID] = [:]
  var told: [ConnectionID: String] = [:]
  /// How far what they are told is.
  var percents: [ConnectionID: Int] = [:]
  /// Whose name a guest shows if it looks.
  var names: [DesktopID: UserName] = [:]
  var layouts: [ConnectionID: String] = [:]
  /// What guests were told of their users' keyboards.
  var guestLayouts: [DesktopID: String] = [:]
  var decisions: [Decision] = []
  private var lastViewer: UInt64 = 0

  init(memory policy: MemoryPolicy = MemoryPolicy(), bootsAtOnce: Int? = nil) {
    site = Site(memory: policy, bootsAtOnce: bootsAtOnce)
    send(.recovered([]))
  }

  // MARK: Doing

  mutating func send(_ event: SiteEvent) {
    act(on: site.handle(event, now: now))
  }

  @discardableResult
  mutating func perform(_ command: AdminCommand) throws -> [SiteAction] {
    var next = site
    let actions = try next.perform(command, now: now)
    site = next
    act(on: actions)
    return actions
  }

  mutating func pass(seconds: Int) {
    now = now.adding(seconds: seconds)
    send(.tick)
  }

  @discardableResult
  mutating func arrive(
    _ user: String, pool: String? = nil, desktop: String? = nil, from peer: String = "here"
  ) -> ConnectionID {
    lastViewer += 1
    let id = ConnectionID(lastViewer)
    let login = Login(
      user: UserName(rawValue: user), pool: pool.map { PoolName(rawValue: $0) },
      desktop: desktop.map { DesktopID(rawValue: $0) }, peer: PeerAddress(peer))
    open[id] = login
    send(.viewerArrived(id, login))
    return id
  }

  mutating func leave(_ id: ConnectionID) {
    close(id)
    send(.viewerLeft(id, reason: "closed"))
  }

  /// Finishes launcher calls, oldest first, until none are left.
  mutating func settle() {
    for _ in 0..<10_000 {
      guard !calls.isEmpty else { return }
      finish(0, well: true)
    }
    Issue.record("the site never comes to rest")
  }

  /// Lets one launcher call succeed or fail.
  mutating func finish(_ index: Int, well: Bool) {
    let call = calls.remove(at: index)
    switch call {
    case .start(let request): finishStart(request, well: well)
    case .stop(let id, _):
      guard well else { return send(.operationFailed(id, .stop, "no answer")) }
      overtakeStarts(of: id)
      end(id, .stopped)
      send(.stopped(id))
    case .discard(let id):
      guard well else { return send(.operationFailed(id, .discard, "busy")) }
      overtakeStarts(of: id)
      traces[id] = nil
      names[id] = nil
      end(id, .stopped)
      send(.discarded(id))
    case .suspend(let id):
      guard well else { return send(.operationFailed(id, .suspend, "no answer")) }
      end(id, .suspended)
      send(.suspended(id))
    case .revert(let id, _):
      guard well else { return send(.operationFailed(id, .revert, "gone")) }
      end(id, .stopped)
      send(.reverted(id, hasMemory: true))
    case .limitDisk(let id, let generation, let limits):
      guard well else { return send(.limitFailed(id, generation: generation, "no answer")) }
      vmms[id]?.limits = limits
      send(.limited(id, generation: generation))
    default: break
    }
  }

  private mutating func overtakeStarts(of id: DesktopID) {
    for case .start(let request) in calls where request.desktop == id {
      overtaken.insert(request)
    }
  }

  private mutating func finishStart(_ request: LaunchRequest, well: Bool) {
    let id = request.desktop
    let isEnding = calls.contains { call in
      switch call {
      case .discard(id), .stop(id, _): true
      default: false
      }
    }
    let overtaken = isEnding || self.overtaken.remove(request) != nil
    guard well, !overtaken else {
      return send(.startFailed(id, generation: request.generation, "no"))
    }
    if request.disk == .fresh { traces[id] = nil }
    if let user = request.user {
      #expect(traces[id, default: []].isSubset(of: [user]), "\(id) starts for \(user)")
    }
    vmms[id] = VMM(
      generation: request.generation, limits: request.diskLimits, memoryMiB: request.memoryMiB)
    names[id] = request.user
    send(.started(id, generation: request.generation))
  }

  /// A VMM ends.
  mutating func end(_ id: DesktopID, _ reason: ExitReason) {
    guard let vmm = vmms.removeValue(forKey: id), vmm.running else { return }
    send(.exited(DesktopExit(desktop: id, generation: vmm.generation, reason: reason)))
  }

  /// carreld is killed and started again. With `losing`, before that event's
  /// decision was acted upon.
  mutating func restartBroker(losing event: SiteEvent? = nil) throws {
    if let event {
      _ = site.handle(event, now: now)
      save()
    }
    calls = []
    overtaken = []
    open = [:]
    shown = [:]
    var restored = Site(memory: site.memory.policy)
    for (key, bytes) in stored.sorted(by: { $0.key < $1.key }) {
      try restored.load(StoredValue(key: key, bytes: bytes, revision: 1), coding: JSONCoding())
    }
    site = restored
    send(
      .recovered(
        vmms.sorted { $0.key < $1.key }.map {
          Survivor(desktop: $0.key, generation: $0.value.generation, state: .running)
        }))
  }

  // MARK: What actions do

  private mutating func act(on actions: [SiteAction]) {
    save()
    for action in actions {
      switch action {
      case .identify(let desktop, let identity):
        names[desktop] = identity.user
        guestLayouts[desktop] = identity.keyboardLayout
      case .setKeyboardLayout(let viewer, let layout): layouts[viewer] = layout
      case .attach(let viewer, let desktop): attach(viewer, to: desktop)
      case .detach(let viewer): shown[viewer] = nil
      case .showStatus(let viewer, let status):
        told[viewer] = status.text
        percents[viewer] = status.percent
      case .close(let viewer, let text):
        told[viewer] = text
        close(viewer)
      case .setName: break
      case .report(let decision):
        decisions.append(decision)
        checkVictim(of: decision)
      case .prioritize(let desktop, let priority): vmms[desktop]?.priority = priority
      case .start, .stop, .discard, .suspend, .revert, .limitDisk: calls.append(action)
      case .reset, .pressPowerButton: break
      }
    }
    checkViewers()
  }

  private mutating func attach(_ viewer: ConnectionID, to desktop: DesktopID) {
    guard let user = open[viewer]?.user else { return }
    #expect(
      traces[desktop, default: []].isSubset(of: [user]),
      "\(user) is shown \(desktop), which holds traces of \(traces[desktop, default: []])")
    #expect(names[desktop] == user, "\(user) is shown \(desktop), which says another name")
    traces[desktop, default: []].insert(user)
    shown[viewer] = desktop
  }

  /// Nobody who is there loses anything for want of memory.
  private func checkVictim(of decision: Decision) {
    let reasons: [Reason] = [.desktopDiscardedMemory, .desktopSuspendedMemory]
    guard reasons.contains(decision.reason), let desktop = decision.desktop else { return }
    #expect(!shown.values.contains(desktop), "\(desktop) is in use: \(decision.text)")
    if decision.reason == .desktopDiscardedMemory {
      #expect(traces[desktop, default: []].isEmpty, "\(desktop) was somebody's")
    }
  }

  private mutating func close(_ viewer: ConnectionID) {
    open[viewer] = nil
    shown[viewer] = nil
  }

  /// Whoever sees a desktop is its owner.
  private func checkViewers() {
    for (viewer, desktop) in shown {
      guard let user = open[viewer]?.user, let record = site.desktops[desktop] else {
        Issue.record("\(viewer) sees \(desktop), which is gone")
        continue
      }
      #expect(record.owner == user, "\(user) sees \(desktop) of \(record.owner?.rawValue ?? "-")")
    }
  }

  private mutating func save() {
    do {
      for write in try site.pendingWrites(coding: JSONCoding()) {
        switch write {
        case .put(let key, let bytes, _): stored[key] = bytes
        case .delete(let key): stored[key] = nil
        }
      }
    } catch {
      Issue.record(error)
    }
    site.markSaved()
  }

  // MARK: Looking

  func desktop(_ id: String) -> Desktop? { site.desktops[DesktopID(rawValue: id)] }

  func phases(of pool: String) -> [Desktop.Phase] {
    site.desktops(of: PoolName(rawValue: pool)).map(\.phase)
  }

  func reasons() -> [Reason] { decisions.map(\.reason) }
}

extension World {
  /// A world with a pool and users entitled to it, spares running.
  static func with(
    _ kind: PoolKind = .floating, size: Int = 3, spares: Int = 1,
    policies: PoolPolicies = PoolPolicies(), users: [String] = ["alice", "bob", "carol"]
  ) throws -> World {
    var world = World()
    try world.perform(.createPool(.sample("office", kind, size, spares, policies)))
    for name in users { try world.add(name, to: "office") }
    world.settle()
    return world
  }

  mutating func add(_ user: String, to pool: String) throws {
    let name = UserName(rawValue: user)
    if site.users[name] == nil { try perform(.addUser(name, verifier: "v")) }
    try perform(.entitle(name, PoolName(rawValue: pool)))
  }
}

extension Pool {
  static func sample(
    _ name: String, _ kind: PoolKind = .floating, _ size: Int = 3, _ spares: Int = 1,
    _ policies: PoolPolicies = PoolPolicies()
  ) -> Pool {
    Pool(
      name: PoolName(rawValue: name), kind: kind, image: Image(kind: .kernel, path: "/demo"),
      size: size, spares: spares, policies: policies, created: Timestamp(milliseconds: 0))
  }
}

/// SplitMix64: the same seed gives the same story.
struct Dice: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  mutating func oneIn(_ count: Int) -> Bool { Int.random(in: 0..<count, using: &self) == 0 }
}
