import Brokering
import Testing

@Suite("After carreld was killed")
struct RecoveryTests {
  private let office1 = DesktopID(rawValue: "office-1")

  @Test("desktops that ran on are kept with their users")
  func adopt() throws {
    var world = try World.with()
    world.arrive("alice")
    world.settle()
    try world.restartBroker()
    #expect(world.calls.isEmpty)
    #expect(world.desktop("office-1")?.phase == .disconnected)
    let viewer = world.arrive("alice")
    #expect(world.shown[viewer] == office1)
    #expect(world.reasons().contains(.recoveredRunning))
  }

  @Test("a desktop that died meanwhile is treated as if it died now")
  func died() throws {
    var world = try World.with()
    world.arrive("alice")
    world.settle()
    world.vmms[office1] = nil
    try world.restartBroker()
    #expect(world.reasons().contains(.recoveredGone))
    world.pass(seconds: 1)
    world.settle()
    #expect(world.desktop("office-1")?.power == .running)
    #expect(world.desktop("office-1")?.owner?.rawValue == "alice")
  }

  @Test("a start that was decided and not done is done")
  func decidedNotDone() throws {
    var world = World()
    try world.perform(.createPool(.sample("office", .floating, 1, 1)))
    #expect(world.calls.count == 1)
    try world.restartBroker()
    world.settle()
    #expect(world.phases(of: "office") == [.clean])
    #expect(world.vmms.count == 1)
  }

  @Test("a start that was done and not reported counts as done")
  func doneNotReported() throws {
    var world = World()
    try world.perform(.createPool(.sample("office", .floating, 1, 1)))
    world.vmms[office1] = .init(generation: 1)
    try world.restartBroker()
    #expect(world.calls.isEmpty)
    #expect(world.phases(of: "office") == [.clean])
  }

  @Test("reverting goes on where it was, before anybody gets the desktop")
  func recycling() throws {
    var world = try World.with(size: 1, spares: 1)
    world.arrive("alice")
    world.settle()
    let session = try #require(world.site.sessions.sorted.first)
    try world.perform(.endSession(session.id))
    try world.restartBroker()
    let bob = world.arrive("bob")
    #expect(world.shown[bob] == nil)
    #expect(world.calls == [.discard(office1)])
    world.settle()
    #expect(world.shown[bob] == office1)
  }

  @Test("a VMM of an earlier start is ended before the desktop is started again")
  func stale() throws {
    var world = World()
    try world.perform(.createPool(.sample("office", .floating, 1, 1)))
    world.vmms[office1] = .init(generation: 77)
    try world.restartBroker()
    #expect(world.calls == [.stop(office1, graceSeconds: 0)])
    world.settle()
    #expect(world.vmms[office1]?.generation == 2)
  }

  @Test("a desktop that no record knows is removed")
  func orphan() throws {
    var world = World()
    world.vmms[DesktopID(rawValue: "ghost-1")] = .init(generation: 1)
    try world.restartBroker()
    #expect(world.calls == [.discard(DesktopID(rawValue: "ghost-1"))])
    world.settle()
    #expect(world.vmms.isEmpty)
  }

  @Test("nothing is started before it is known what survived")
  func order() throws {
    var site = Site()
    let actions = try site.perform(
      .createPool(.sample("office")), now: Timestamp(milliseconds: 0))
    #expect(actions.isEmpty)
  }

  @Test("a record of another version is refused by name")
  func unknownRecord() {
    var site = Site()
    let value = StoredValue(key: "planet/mars", bytes: [], revision: 1)
    let error = #expect(throws: StoreError.self) {
      try site.load(value, coding: JSONCoding())
    }
    #expect(error?.kind == .newer)
    #expect(error?.context.contains("planet/mars") == true)
  }

  @Test("a damaged record is refused by name")
  func damagedRecord() {
    var site = Site()
    let value = StoredValue(key: "pool/office", bytes: [UInt8]("{]".utf8), revision: 1)
    let error = #expect(throws: StoreError.self) {
      try site.load(value, coding: JSONCoding())
    }
    #expect(error?.kind == .corrupt)
    #expect(error?.context.contains("pool/office") == true)
  }
}
