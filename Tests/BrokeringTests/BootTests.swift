import Brokering
import Testing

@Suite("How many desktops boot at the same time")
struct BootTests {
  private let journal = Journal()

  private func world(spares: Int, users: [String] = [], kind: PoolKind = .floating) throws -> World
  {
    var world = World(bootsAtOnce: 2)
    try world.perform(.createPool(.sample("office", kind, 20, spares)))
    for name in users { try world.add(name, to: "office") }
    return world
  }

  private func comeUp(_ world: inout World, _ name: String, _ kind: StartKind = .booted) {
    let id = DesktopID(rawValue: name)
    world.send(.cameUp(id, generation: world.desktop(name)?.generation ?? 0, kind))
  }

  private func starting(_ world: World) -> [String] {
    world.calls.compactMap {
      if case .start(let request) = $0 { request.desktop.rawValue } else { nil }
    }
  }

  @Test("spares begin as others have come up, and say until then what they wait for")
  func turns() throws {
    var world = try world(spares: 5)
    #expect(world.site.desktops.count == 5)
    #expect(starting(world) == ["office-1", "office-2"])
    world.settle()
    #expect(world.vmms.count == 2 && world.calls.isEmpty, "their guests boot")
    let reason = world.site.bootWait(of: DesktopID(rawValue: "office-3"))
    #expect(reason?.contains("2 desktop(s) boot just now") == true, "\(reason ?? "")")
    #expect(world.site.bootWait(of: DesktopID(rawValue: "office-1")) == nil)
    comeUp(&world, "office-2")
    #expect(starting(world) == ["office-3"])
    world.settle()
    // Of an earlier start.
    world.send(.cameUp(DesktopID(rawValue: "office-1"), generation: 0, .booted))
    #expect(world.calls.isEmpty)
    comeUp(&world, "office-1")
    comeUp(&world, "office-3")
    world.settle()
    comeUp(&world, "office-4")
    world.settle()
    #expect(
      world.vmms.count == 5 && world.site.bootWait(of: DesktopID(rawValue: "office-5")) == nil)
  }

  @Test("what ends while it boots makes room for the next")
  func ends() throws {
    var world = try world(spares: 4)
    world.settle()
    try world.perform(.deleteDesktop(DesktopID(rawValue: "office-1"), force: false))
    world.settle()
    #expect(world.vmms.keys.map(\.rawValue).sorted() == ["office-2", "office-3"])
    world.end(DesktopID(rawValue: "office-2"), .crashed("gone"))
    #expect(starting(world) == ["office-4"])
  }

  @Test("whoever logs in never waits for that, and gets what has begun before what has not")
  func logins() throws {
    let users = (1...6).map { "user\($0)" }
    var world = try world(spares: 4, users: users)
    world.finish(1, well: false)
    for name in users.prefix(3) { world.arrive(name) }
    #expect(starting(world).contains("office-1"))
    #expect(world.desktop("office-1")?.owner?.rawValue == "user1", "it has begun")
    #expect(Set(starting(world)).isSuperset(of: ["office-3", "office-4"]), "at once")
    world.settle()
    #expect(world.shown.count == 3)
    for name in users.suffix(3) { world.arrive(name) }
    world.settle()
    #expect(world.shown.count == 6)
    #expect(world.site.desktops.values.allSatisfy { $0.owner != nil || $0.power == .off })
  }

  @Test("clones are held only until one is known to be, and boot again when their pool changes")
  func clones() throws {
    var world = try world(spares: 3)
    world.settle()
    #expect(world.vmms.count == 2)
    comeUp(&world, "office-1", .cloned)
    var more = PoolChange()
    more.spares = 15
    try world.perform(.updatePool(PoolName(rawValue: "office"), more))
    #expect(starting(world).count == 13)
    world.settle()
    for number in 2...15 { comeUp(&world, "office-\(number)", .cloned) }
    var change = PoolChange()
    change.cpus = 2
    try world.perform(.updatePool(PoolName(rawValue: "office"), change))
    #expect(starting(world).count == 2)
  }

  @Test("without a bound all begin, and the launcher is not asked")
  func unbounded() throws {
    var world = try World.with(size: 30, spares: 30)
    #expect(world.vmms.count == 30)
    comeUp(&world, "office-1")
    #expect(world.calls.isEmpty)
  }

  @Test("the broker asks its launcher how guests come up, and begins the next then")
  func broker() async throws {
    let broker = Broker(
      store: MemoryStore(), coding: JSONCoding(), launcher: InstantLauncher(journal: journal),
      authenticator: PlainAuthenticator(), clock: HandClock(),
      settings: Broker.Settings(bootsAtOnce: 1))
    try await broker.load()
    let task = Task { try await broker.run() }
    try await broker.perform(.createPool(.sample("office", .floating, 4, 4)))
    await journal.wait(for: "start office-4")
    #expect(journal.lines.filter { $0.hasPrefix("come up") }.first == "come up office-1")
    let (first, second) = (
      journal.lines.firstIndex(of: "come up office-1"),
      journal.lines.firstIndex(of: "start office-2")
    )
    #expect(try #require(first) < #require(second))
    await broker.stop()
    try await task.value
  }
}
