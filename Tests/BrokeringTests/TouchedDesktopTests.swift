import Brokering
import Testing

@Suite("Random stories")
struct TouchedDesktopTests {
  @Test(
    "a desktop that a user touched never goes to another, whatever happens when",
    arguments: 0..<60)
  func touched(seed: Int) throws {
    var story = try Story(seed: UInt64(seed))
    for _ in 0..<250 { try story.step() }
    try story.checkRest()
  }
}

/// One random sequence of everything that can happen.
private struct Story {
  private static let users = ["alice", "bob", "carol", "dave"]
  private static let pools = ["office", "own", "hand"]

  var world = World()
  var dice: Dice

  init(seed: UInt64) throws {
    dice = Dice(seed: seed)
    var policies = PoolPolicies()
    policies.onDisconnect = PoolPolicies.OnDisconnect.allCases.randomElement(using: &dice) ?? .keep
    policies.disconnectSeconds = 20
    policies.afterCrash = dice.oneIn(2) ? .restart : .recycle
    policies.takeover = dice.oneIn(4) ? .refuse : .steal
    try world.perform(.createPool(.sample("office", .floating, 3, 1, policies)))
    try world.perform(.createPool(.sample("own", .dedicated, 3, 1, policies)))
    try world.perform(.createPool(.sample("hand", .manual, 2, 1, policies)))
    for user in Self.users {
      for pool in Self.pools { try world.add(user, to: pool) }
    }
  }

  mutating func step() throws {
    switch Int.random(in: 0..<22, using: &dice) {
    case 0..<4: arrive()
    case 4..<6:
      if let viewer = world.open.keys.sorted().randomElement(using: &dice) {
        world.leave(viewer)
      }
    case 6..<13:
      guard !world.calls.isEmpty else { return }
      world.finish(world.calls.indices.randomElement(using: &dice) ?? 0, well: !dice.oneIn(5))
    case 13: endSomeVMM()
    case 14: world.pass(seconds: Int.random(in: 1...40, using: &dice))
    case 15: try restart()
    case 16, 17: measure()
    default: administer()
    }
  }

  private mutating func arrive() {
    guard let user = Self.users.randomElement(using: &dice) else { return }
    world.arrive(user, pool: dice.oneIn(2) ? Self.pools.randomElement(using: &dice) : nil)
  }

  private mutating func endSomeVMM() {
    guard let id = world.vmms.keys.sorted().randomElement(using: &dice) else { return }
    world.end(id, dice.oneIn(2) ? .guestShutdown : .crashed("signal 9"))
  }

  /// The host has more or less memory left, and sometimes hardly any.
  private mutating func measure() {
    let available = Int.random(in: dice.oneIn(2) ? 0...900 : 0...8000, using: &dice)
    world.send(
      .memory(
        MemoryReading(totalMiB: 8000, availableMiB: available, isStalling: dice.oneIn(5))))
  }

  /// carreld is killed, in the middle of something or not.
  private mutating func restart() throws {
    // Calls that were under way may or may not have had their effect.
    for call in world.calls where dice.oneIn(2) {
      switch call {
      case .start(let request):
        if request.disk == .fresh { world.traces[request.desktop] = nil }
        world.vmms[request.desktop] = .init(generation: request.generation)
      case .discard(let id):
        world.traces[id] = nil
        world.vmms[id] = nil
      default: break
      }
    }
    let lost = world.site.desktops.sorted.randomElement(using: &dice).map {
      SiteEvent.exited(
        DesktopExit(desktop: $0.id, generation: $0.generation, reason: .guestShutdown))
    }
    if let lost, dice.oneIn(3), case .exited(let exit) = lost {
      world.vmms[exit.desktop] = nil
      try world.restartBroker(losing: lost)
    } else {
      try world.restartBroker()
    }
  }

  private mutating func administer() {
    guard let desktop = world.site.desktops.sorted.randomElement(using: &dice)?.id,
      let user = Self.users.randomElement(using: &dice).map({ UserName(rawValue: $0) }),
      let pool = Self.pools.randomElement(using: &dice).map({ PoolName(rawValue: $0) })
    else { return }
    let force = dice.oneIn(2)
    var change = PoolChange()
    change.size = Int.random(in: 1...4, using: &dice)
    change.spares = Int.random(in: 0...1, using: &dice)
    if dice.oneIn(3) { change.memoryMiB = Int.random(in: 64...1024, using: &dice) }
    var commands: [AdminCommand] = [
      .startDesktop(desktop), .stopDesktop(desktop, force: force), .resetDesktop(desktop),
      .releaseDesktop(desktop, force: force), .deleteDesktop(desktop, force: force),
      .assignDesktop(desktop, user), .setDisabled(user, dice.oneIn(3)), .entitle(user, pool),
      .entitle(user, pool), .revoke(user, pool), .updatePool(pool, change),
    ]
    if let session = world.site.sessions.sorted.randomElement(using: &dice) {
      commands += [.endSession(session.id), .endSession(session.id)]
    }
    if dice.oneIn(10) { commands = [.deletePool(pool, force: force)] }
    if dice.oneIn(10) { commands = [.createPool(.sample(pool.rawValue, .floating, 2, 1))] }
    if dice.oneIn(10) {
      commands = [.deleteUser(user, force: force), .addUser(user, verifier: nil)]
    }
    // Many are refused, as they should be.
    if let command = commands.randomElement(using: &dice) { _ = try? world.perform(command) }
  }

  /// Left alone, everything comes to rest where it should be.
  mutating func checkRest() throws {
    for _ in 0..<8 {
      // There is plenty again, for which new desktops are larger.
      world.send(.memory(MemoryReading(totalMiB: 64_000, availableMiB: 60_000)))
      world.settle()
      world.pass(seconds: 400)
    }
    world.settle()
    #expect(world.calls.isEmpty)
    for pool in world.site.pools.sorted {
      let all = world.site.desktops(of: pool.name)
      let ready = all.filter { $0.owner == nil && ($0.held || $0.phase == .clean) }
      let wanted = min(pool.spares, pool.size - all.count { $0.owner != nil })
      #expect(ready.count >= wanted, "pool \(pool.name) has \(ready.count) of \(wanted) spares")
      #expect(!pool.draining || !all.isEmpty, "pool \(pool.name) should be gone")
    }
    for record in world.site.desktops.sorted {
      #expect(
        ![.dirty, .recycling, .failed].contains(record.phase), "\(record.id) is \(record.phase)")
      if record.wanted {
        let power: Desktop.Power = record.phase == .suspended ? .off : .running
        #expect(record.power == power, "\(record.id) is \(record.power)")
      }
      #expect(world.vmms[record.id] != nil || record.power != .running)
    }
    for id in world.vmms.keys { #expect(world.site.desktops[id] != nil, "\(id) is an orphan") }
  }
}
