import Brokering
import Testing

/// A host of 4,000 MiB, of which 6,000 may be promised and 1,000 are the reserve; desktops
/// count with 560 each.
@Suite("The host's memory")
struct MemoryTests {
  private static let each = 512 + MemoryBudget.overheadMiB

  private func world(
    spares: Int = 0, size: Int = 20, users: [String] = ["alice", "bob", "carol", "dave"],
    kind: PoolKind = .floating
  ) throws -> World {
    var world = World()
    measure(&world, 4000)
    try world.perform(.createPool(.sample("office", kind, size, spares)))
    for name in users { try world.add(name, to: "office") }
    world.settle()
    return world
  }

  private func measure(_ world: inout World, _ available: Int, stalling: Bool = false) {
    world.send(
      .memory(
        MemoryReading(totalMiB: 4000, availableMiB: available, isStalling: stalling)))
  }

  private func running(_ world: World) -> [String] {
    world.vmms.keys.map(\.rawValue).sorted()
  }

  @Test("spares are made as long as they fit, both by what they may take and by what there is")
  func spares() throws {
    var world = try world(spares: 20)
    #expect(world.vmms.count == 5, "a sixth could leave less than the reserve")
    #expect(world.site.promisedMiB == 5 * Self.each)
    for _ in 0..<5 {
      measure(&world, 3900)
      world.settle()
    }
    #expect(world.vmms.count == 8, "a ninth would be promised what is kept for logins")
    #expect(world.site.desktops.count == 8)
    #expect(world.site.memory.state == .ok)
    let office = try #require(world.site.pools[PoolName(rawValue: "office")])
    let reason =
      "12 of 20 spares wait: one needs 560 MiB of memory, and 520 MiB of the 5000 MiB are left that "
      + "may be promised to desktops that nobody waits for"
    #expect(world.site.spareWait(of: office) == reason)
    var fewer = PoolChange()
    fewer.spares = 8
    try world.perform(.updatePool(office.name, fewer))
    #expect(world.site.spareWait(of: try world.site.find(office.name)) == nil)
  }

  @Test("a pool whose desktops could never be promised their memory is refused")
  func tooLarge() throws {
    var world = try world()
    let most = 6000 - MemoryBudget.overheadMiB
    var change = PoolChange()
    change.memoryMiB = most + 1
    let office = PoolName(rawValue: "office")
    let error = #expect(throws: BrokerError.self) {
      try world.perform(.updatePool(office, change))
    }
    #expect(error?.context.contains("6000 MiB: give --memory less") == true)
    var pool = Pool.sample("large", .floating, 2, 0)
    pool.memoryMiB = most + 1
    #expect(throws: BrokerError.self) { try world.perform(.createPool(pool)) }
    #expect(world.site.pools[pool.name] == nil && world.site.pools[office]?.memoryMiB == 512)
    change.memoryMiB = most
    try world.perform(.updatePool(office, change))
    #expect(world.site.pools[office]?.memoryMiB == most)
  }

  @Test("a pool whose spares could never be promised theirs is refused, unless it has none")
  func tooLargeForSpares() throws {
    var world = try world()
    let most = 5000 - MemoryBudget.overheadMiB
    var pool = Pool.sample("large", .floating, 2, 1)
    pool.memoryMiB = most + 1
    let error = #expect(throws: BrokerError.self) { try world.perform(.createPool(pool)) }
    #expect(error?.context.contains("5000 MiB, as 1000 MiB are kept for logins") == true)
    #expect(error?.context.contains("--spares 0") == true)
    pool.spares = 0
    try world.perform(.createPool(pool))
    var change = PoolChange()
    change.spares = 1
    #expect(throws: BrokerError.self) { try world.perform(.updatePool(pool.name, change)) }
    change.memoryMiB = most
    try world.perform(.updatePool(pool.name, change))
  }

  @Test("a spare that is made and not started is what its pool waits for")
  func heldSpare() throws {
    var world = try world(spares: 1)
    measure(&world, 1200)
    let name = PoolName(rawValue: "office")
    #expect(world.site.spareWait(of: try world.site.find(name)) == nil, "it runs")
    world.end(DesktopID(rawValue: "office-1"), .crashed("gone"))
    world.pass(seconds: 2)
    let reason = world.site.spareWait(of: try world.site.find(name))
    #expect(reason?.hasPrefix("spare office-1 waits: it needs 560 MiB") == true, "\(reason ?? "")")
  }

  @Test("without a reading there is no limit")
  func unknown() throws {
    let world = try World.with(size: 100, spares: 100)
    #expect(world.vmms.count == 100)
    #expect(!world.site.isShortOfMemory(for: .create(PoolName(rawValue: "office"))))
  }

  @Test("spares that use all they may neither come and go nor have others do so")
  func steady() throws {
    var world = try world(spares: 12)
    for _ in 0..<100 {
      measure(&world, 4000 - Self.each * world.vmms.count)
      world.settle()
    }
    #expect(world.vmms.count > 2)
    #expect(!world.reasons().contains(.desktopDiscardedMemory))
    #expect(world.decisions.count { $0.reason == .desktopCreatedSpare } == world.vmms.count)
  }

  @Test("a login goes into the reserve, then takes a spare's place")
  func logins() throws {
    var world = try world(spares: 20, users: [])
    for _ in 0..<5 {
      measure(&world, 3900)
      world.settle()
    }
    try world.perform(.createPool(.sample("study", .dedicated, 9, 0)))
    for name in ["alice", "bob", "carol"] { try world.add(name, to: "study") }
    world.arrive("alice")
    world.arrive("bob")
    #expect(!world.reasons().contains(.desktopDiscardedMemory))
    world.settle()
    measure(&world, 3900)
    let carol = world.arrive("carol")
    #expect(world.calls == [.discard(DesktopID(rawValue: "office-8"))], "the newest, and no other")
    #expect(world.told[carol]?.contains("short of memory") == true)
    world.settle()
    #expect(world.shown.count == 3)
    #expect(world.site.promisedMiB <= world.site.memory.limitMiB)
    world.settle()
    measure(&world, 3900)
    #expect(world.calls.isEmpty, "no spare is made in its place")
  }

  @Test("a login that nothing can be found for waits, is told why, and gets what is left first")
  func waiting() throws {
    let users = (1...12).map { "user\($0)" }
    var world = try world(users: users)
    var viewers: [ConnectionID] = []
    for name in users.prefix(10) {
      viewers.append(world.arrive(name))
      world.settle()
      measure(&world, 3000)
    }
    #expect(world.shown.count == 10)
    let late = world.arrive("user11")
    let later = world.arrive("user12")
    world.pass(seconds: 10)
    measure(&world, 3000)
    #expect(world.calls.isEmpty)
    #expect(
      world.told[late]
        == "The server is short of memory. office-11 starts once there is some.")
    #expect(
      world.site.memoryWait(of: DesktopID(rawValue: "office-11"))
        == "it needs 560 MiB of memory, and 400 MiB of the 6000 MiB are left that may be promised")
    #expect(world.site.memoryWait(of: DesktopID(rawValue: "office-1")) == nil)
    let history = try #require(world.site.histories[UserName(rawValue: "user11")])
    #expect(history.count { $0.reason == .loginWaitingMemory } == 1)
    let login = Login(user: UserName(rawValue: "x"), pool: nil, peer: PeerAddress("here"))
    #expect(world.site.isShortOfMemory(for: .create(PoolName(rawValue: "office"))))
    #expect(!world.site.isShortOfMemory(for: world.site.placement(of: login)), "it is refused")

    world.leave(viewers[3])
    #expect(world.calls == [.suspend(DesktopID(rawValue: "office-4"))])
    world.settle()
    #expect(world.shown[late] == DesktopID(rawValue: "office-11"))
    #expect(world.shown[later] == nil)
    #expect(world.desktop("office-4")?.phase == .suspended)
    #expect(world.reasons().contains(.desktopSuspendedMemory))
    let back = world.arrive("user4")
    #expect(world.told[back]?.contains("short of memory") == true)
    world.leave(viewers[5])
    world.settle()
    #expect(world.shown[later] != nil, "whoever came first")
    world.leave(viewers[6])
    world.settle()
    #expect(world.shown[back] == DesktopID(rawValue: "office-4"))
  }

  @Test("a desktop that the administrator starts says what it waits for, and starts then")
  func startedByHand() throws {
    var world = try world(users: ["alice"], kind: .dedicated)
    let office = DesktopID(rawValue: "office-1")
    let viewer = world.arrive("alice")
    world.settle()
    world.leave(viewer)
    try world.perform(.stopDesktop(office, force: false))
    world.settle()
    #expect(world.vmms.isEmpty)
    measure(&world, 1400)
    #expect(world.site.memoryWait(of: office) == nil, "it is not to run")
    try world.perform(.startDesktop(office))
    #expect(world.calls.isEmpty)
    #expect(
      world.site.memoryWait(of: office)
        == "it needs 560 MiB of memory, and the host has 1400 MiB available, of which 1000 MiB "
        + "stay free")
    measure(&world, 1700, stalling: true)
    #expect(
      world.site.memoryWait(of: office)
        == "it needs 560 MiB of memory, and the host has 1700 MiB available, which is tight")
    measure(&world, 3900)
    world.settle()
    #expect(running(world) == ["office-1"] && world.site.memoryWait(of: office) == nil)
  }

  /// Two spares; carol is there, alice and then bob have left.
  private func pressed() throws -> World {
    var world = try world(spares: 2)
    let viewers = ["alice", "bob", "carol"].map { world.arrive($0) }
    world.settle()
    world.pass(seconds: 10)
    world.leave(viewers[0])
    world.pass(seconds: 10)
    world.leave(viewers[1])
    measure(&world, 3000)
    world.settle()
    return world
  }

  @Test("little memory takes spares, newest first, and then what nobody looks at, one by one")
  func pressure() throws {
    var world = try pressed()
    let spares = world.site.desktops.sorted.filter { $0.owner == nil }.map(\.id).sorted()
    #expect(spares.count == 2)
    let owned = { (user: String) -> DesktopID? in
      world.site.desktops.sorted.first { $0.owner?.rawValue == user }?.id
    }
    let (alice, bob) = (try #require(owned("alice")), try #require(owned("bob")))
    let expected: [SiteAction] = [
      .discard(spares[1]), .discard(spares[0]), .suspend(alice), .suspend(bob),
    ]
    for action in expected {
      measure(&world, 900)
      #expect(world.calls == [action])
      measure(&world, 850)
      #expect(world.calls == [action], "the next one when this is done")
      world.settle()
      #expect(world.calls.isEmpty, "and was seen in a reading")
    }
    for _ in 0..<5 {
      measure(&world, 10)
      #expect(world.calls.isEmpty, "carol is there")
    }
    #expect(world.shown.count == 1)
    #expect(world.site.memory.state == .critical)
  }

  @Test("spares come back when there is plenty, not when there is just enough")
  func hysteresis() throws {
    var world = try pressed()
    measure(&world, 990)
    world.settle()
    measure(&world, 1100)
    #expect(world.site.memory.state == .tight)
    world.settle()
    measure(&world, 1260)
    #expect(world.site.memory.state == .ok)
    #expect(world.calls.isEmpty)
    measure(&world, 1260 + Self.each)
    #expect(world.calls.count == 1)
    world.settle()
    measure(&world, 3000)
    world.settle()
    #expect(world.phases(of: "office").count { $0 == .clean } == 2)
  }

  @Test("in need all spares go at once, and nothing starts, not even for a login")
  func critical() throws {
    var world = try pressed()
    measure(&world, 150)
    #expect(world.calls.count == 2)
    #expect(world.calls.allSatisfy { if case .discard = $0 { true } else { false } })
    let dave = world.arrive("dave")
    world.settle()
    #expect(world.told[dave]?.contains("short of memory") == true)
    #expect(world.vmms.values.count { $0.running } == 1, "of those that anybody looks at")
    measure(&world, 240)
    #expect(world.shown[dave] == nil)
    measure(&world, 2000)
    world.settle()
    #expect(world.shown[dave] != nil)
  }

  @Test("one that cannot be suspended is left alone for a minute, and the next is taken")
  func unsuspendable() throws {
    var world = try pressed()
    for _ in 0..<2 {
      measure(&world, 900)
      world.settle()
    }
    measure(&world, 900)
    guard case .suspend(let first)? = world.calls.first else {
      Issue.record("nobody is suspended")
      return
    }
    world.finish(0, well: false)
    measure(&world, 900)
    guard case .suspend(let second)? = world.calls.first else {
      Issue.record("nobody else is suspended")
      return
    }
    #expect(first != second)
    world.settle()
    measure(&world, 900)
    #expect(world.calls.isEmpty)
    world.pass(seconds: 61)
    measure(&world, 900)
    #expect(world.calls == [.suspend(first)])
    #expect(world.site.desktops[first]?.phase == .suspended)
  }

  @Test("desktops that leave by themselves, or cannot, keep nobody from giving memory back")
  func busy() throws {
    var world = try pressed()
    let carol = try #require(world.shown.values.first)
    try world.perform(.releaseDesktop(carol, force: true))
    #expect(world.calls == [.discard(carol)])
    measure(&world, 900)
    #expect(world.calls.count == 2, "a spare goes, too")
    world.finish(0, well: false)
    world.settle()
    measure(&world, 900)
    #expect(world.calls.count == 1)
    #expect(!world.calls.contains(.discard(carol)), "it is tried again later")
  }

  @Test("programs that wait for memory are a sign where there is not much, and none elsewhere")
  func stalling() throws {
    var world = try pressed()
    measure(&world, 3000, stalling: true)
    #expect(world.site.memory.state == .ok)
    measure(&world, 1900, stalling: true)
    #expect(world.site.memory.state == .tight)
    #expect(world.calls.count == 1)
  }

  @Test("what its pool is given later does not change what a running desktop counts with")
  func changedPool() throws {
    var world = try world(kind: .dedicated)
    world.arrive("alice")
    world.settle()
    var change = PoolChange()
    change.memoryMiB = 1024
    try world.perform(.updatePool(PoolName(rawValue: "office"), change))
    #expect(world.site.promisedMiB == Self.each)
    world.end(DesktopID(rawValue: "office-1"), .crashed("gone"))
    world.settle()
    #expect(world.site.promisedMiB == Self.each + 512)
    #expect(world.site.memoryOfFullPoolsMiB == 20 * (Self.each + 512))
  }

  @Test("the kernel is told whom to end first, also of those that ran on while carreld was away")
  func priorities() throws {
    var world = try world(spares: 1)
    let first = DesktopID(rawValue: "office-1")
    #expect(world.vmms[first]?.priority == .spare)
    let alice = world.arrive("alice")
    #expect(world.vmms[first]?.priority == .inUse)
    world.leave(alice)
    #expect(world.vmms[first]?.priority == .idle)
    world.vmms[first]?.priority = nil
    try world.restartBroker()
    #expect(world.vmms[first]?.priority == .idle)
    world.arrive("alice")
    #expect(world.vmms[first]?.priority == .inUse)
  }

  @Test("only readings that could change anything are heeded")
  func heeded() throws {
    var world = try world()
    let same = MemoryReading(totalMiB: 4000, availableMiB: 3990)
    #expect(!world.site.heeds(same))
    #expect(world.site.heeds(MemoryReading(totalMiB: 4000, availableMiB: 3900)))
    #expect(world.site.heeds(MemoryReading(totalMiB: 3999, availableMiB: 3990)))
    measure(&world, 1500)
    #expect(world.site.heeds(MemoryReading(totalMiB: 4000, availableMiB: 1500)))
    #expect(World().site.heeds(same))
  }
}
