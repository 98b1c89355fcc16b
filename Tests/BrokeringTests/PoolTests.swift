import Brokering
import Testing

@Suite("Pools")
struct PoolTests {
  private let office = PoolName(rawValue: "office")

  @Test("a new pool has its spares, and never more desktops than its size")
  func sizes() throws {
    var world = try World.with(size: 3, spares: 2)
    #expect(world.phases(of: "office") == [.clean, .clean])
    for user in ["alice", "bob", "carol"] { world.arrive(user) }
    world.settle()
    #expect(world.phases(of: "office") == [.connected, .connected, .connected])
  }

  @Test("more spares than wanted are deleted, running ones last")
  func surplus() throws {
    var world = try World.with(size: 4, spares: 3)
    var change = PoolChange()
    change.spares = 1
    try world.perform(.updatePool(office, change))
    world.settle()
    #expect(world.site.desktops(of: office).map(\.id.rawValue) == ["office-1"])
  }

  @Test("a new image replaces the spares and leaves desktops in use alone")
  func newImage() throws {
    var world = try World.with(size: 3, spares: 1)
    world.arrive("alice")
    world.settle()
    var change = PoolChange()
    change.image = Image(kind: .kernel, path: "/newer")
    try world.perform(.updatePool(office, change))
    world.settle()
    #expect(world.desktop("office-1")?.phase == .connected)
    #expect(world.desktop("office-2") == nil)
    #expect(world.desktop("office-3")?.phase == .clean)
  }

  @Test("a pool whose image does not start makes a bounded number of attempts")
  func failing() throws {
    var world = World()
    try world.perform(.createPool(.sample("office", .floating, 10, 2)))
    var starts = 0
    for _ in 0..<200 {
      while !world.calls.isEmpty {
        starts += 1
        world.finish(0, well: false)
      }
      world.pass(seconds: 1)
    }
    #expect(world.phases(of: "office") == [.failed, .failed])
    #expect(starts == 10)
    #expect(world.site.pools[office].map { world.site.desktops(of: $0.name).count } == 2)
  }

  @Test("a failed desktop is tried again later, and comes back when its cause is gone")
  func failedRetry() throws {
    var world = World()
    try world.perform(.createPool(.sample("office", .floating, 1, 1)))
    for _ in 0..<40 {
      while !world.calls.isEmpty { world.finish(0, well: false) }
      world.pass(seconds: 1)
    }
    #expect(world.phases(of: "office") == [.failed])
    world.pass(seconds: 301)
    world.settle()
    #expect(world.phases(of: "office") == [.clean])
  }

  @Test("deleting a pool in use needs force, and then leaves nothing")
  func delete() throws {
    var world = try World.with(size: 3, spares: 1)
    let viewer = world.arrive("alice")
    world.settle()
    #expect(throws: BrokerError.self) { try world.perform(.deletePool(office, force: false)) }
    try world.perform(.deletePool(office, force: true))
    #expect(world.told[viewer] == "Your desktop was deleted.")
    world.settle()
    #expect(world.site.pools.isEmpty)
    #expect(world.site.desktops.isEmpty)
    #expect(world.site.entitlements.isEmpty)
    #expect(world.vmms.isEmpty)
    #expect(world.stored.keys.filter { $0.hasPrefix("pool/") || $0.hasPrefix("desktop/") } == [])
  }

  @Test("numbers of desktops are not used twice")
  func numbers() throws {
    var world = try World.with(size: 2, spares: 1)
    try world.perform(.deleteDesktop(DesktopID(rawValue: "office-1"), force: false))
    world.settle()
    #expect(world.site.desktops.sorted.map(\.id.rawValue) == ["office-2"])
  }

  @Test("a stopped desktop stays off until it is started")
  func hold() throws {
    var world = try World.with(size: 2, spares: 1)
    let id = DesktopID(rawValue: "office-1")
    try world.perform(.stopDesktop(id, force: false))
    world.settle()
    world.pass(seconds: 1000)
    #expect(world.desktop("office-1")?.power == .off)
    #expect(world.calls.isEmpty)
    try world.perform(.startDesktop(id))
    world.settle()
    #expect(world.desktop("office-1")?.power == .running)
    #expect(world.desktop("office-1")?.phase == .clean)
  }

  @Test(
    "values that make no sense are refused",
    arguments: [
      (0, 0, 512, 1), (2, 3, 512, 1), (2, 1, 0, 1), (2, 1, 512, 0), (2, -1, 512, 1),
      (20_000, 1, 512, 1),
    ])
  func values(size: Int, spares: Int, memory: Int, cpus: Int) {
    var pool = Pool.sample("office", .floating, size, spares)
    pool.memoryMiB = memory
    pool.cpus = cpus
    var site = Site()
    #expect(throws: BrokerError.self) {
      try site.perform(.createPool(pool), now: Timestamp(milliseconds: 0))
    }
  }

  @Test(
    "names that could be paths or nothing are refused",
    arguments: ["", ".", "..", "a/b", "-x", "ä", "a b", String(repeating: "x", count: 33)])
  func names(name: String) {
    #expect(throws: BrokerError.self) { try PoolName(checking: name) }
    #expect(throws: BrokerError.self) { try UserName(checking: name) }
  }
}
