import Brokering
import Testing

@Suite("A desktop that comes back from a backup")
struct RestoredDesktopTests {
  private let office = PoolName(rawValue: "office")
  private let alice = UserName(rawValue: "alice")

  private func world(size: Int = 5) throws -> World {
    try World.with(.dedicated, size: size)
  }

  @Test("is off, its owner's, keeps its disk, and starts when they log in")
  func off() throws {
    var world = try world()
    world.settle()
    try world.perform(.reserveNumber(office, 7))
    try world.perform(.restoreDesktop(office, 7, alice, saved: false))
    world.settle()
    let restored = try #require(world.desktop("office-7"))
    #expect(restored.owner == alice && restored.touched && restored.power == .off)
    #expect(restored.disk == .keep && restored.phase == .assigned)
    #expect(world.reasons().contains(.desktopRestored))
    let viewer = world.arrive("alice")
    world.settle()
    #expect(world.shown[viewer] == restored.id)
    #expect(world.desktop("office-7")?.power == .running)
  }

  @Test("with memory is suspended, and goes on when its owner logs in")
  func saved() throws {
    var world = try world()
    world.settle()
    try world.perform(.restoreDesktop(office, 7, alice, saved: true))
    world.settle()
    #expect(world.desktop("office-7")?.phase == .suspended)
    #expect(world.desktop("office-7")?.power == .off)
    _ = world.arrive("alice")
    let start = world.calls.compactMap { call -> LaunchRequest? in
      guard case .start(let request) = call, request.desktop.rawValue == "office-7" else {
        return nil
      }
      return request
    }.first
    #expect(start?.resumes == true && start?.disk == .keep)
  }

  @Test("beside another of its owner's is reached by its pool's name, or by its own alone")
  func ways() throws {
    var world = try world()
    try world.perform(.createPool(.sample("study", .dedicated, 5, 0)))
    try world.add("alice", to: "study")
    let (own, restored) = (DesktopID(rawValue: "office-1"), DesktopID(rawValue: "office-7"))
    func ways() -> [DesktopWay?] { [own, restored].map(world.site.way) }
    #expect(ways() == [nil, nil], "nobody's, and none")
    try world.perform(.restoreDesktop(office, 7, alice, saved: true))
    #expect(ways() == [nil, DesktopWay(name: "alice")])
    let first = world.arrive("alice", pool: "study")
    world.settle()
    let study = DesktopID(rawValue: "study-1")
    #expect(world.shown[first] == study)
    #expect(ways() == [nil, DesktopWay(name: "alice/office", plain: study)])
    try world.perform(.assignDesktop(own, alice))
    #expect(
      ways() == [
        DesktopWay(name: "alice/office", plain: study),
        DesktopWay(name: "alice/office-7", plain: study),
      ])
    let second = world.arrive("alice", desktop: "office-7")
    world.settle()
    #expect(world.shown[second] == restored)
    // It is what she was last at.
    #expect(ways()[1] == DesktopWay(name: "alice"))
    world.leave(second)

    // Others do not get it by its name, and a pool of that name goes before it.
    let bob = world.arrive("bob", desktop: "office-7")
    #expect(world.told[bob] == "bob may not use desktop office-7.")
    try world.perform(.createPool(.sample("office-7", .dedicated, 5, 0)))
    let third = world.arrive("alice", pool: "office-7", desktop: "office-7")
    #expect(world.told[third] == "alice may not use pool office-7.")
    try world.add("alice", to: "office-7")
    let fourth = world.arrive("alice", pool: "office-7", desktop: "office-7")
    world.settle()
    #expect(world.shown[fourth]?.rawValue == "office-7-1")
    try world.perform(.revoke(alice, office))
    #expect(ways() == [nil, nil])
  }

  @Test("has a number that no other gets, and room in a pool that stays")
  func refusals() throws {
    var world = try world(size: 2)
    world.settle()
    try world.perform(.reserveNumber(office, 7))
    #expect(world.site.pools[office]?.nextNumber == 8)
    try world.perform(.reserveNumber(office, 3))
    #expect(world.site.pools[office]?.nextNumber == 8)
    let nobody = UserName(rawValue: "nobody")
    #expect(throws: BrokerError.self) {
      try world.perform(.restoreDesktop(office, 7, nobody, saved: false))
    }
    #expect(throws: BrokerError.self) {
      try world.perform(.restoreDesktop(PoolName(rawValue: "none"), 7, alice, saved: false))
    }
    #expect(throws: BrokerError.self) { try world.perform(.reserveNumber(office, 0)) }
    #expect(throws: BrokerError.self) { try world.perform(.reserveNumber(office, .max)) }
    while world.site.desktops(of: office).count < 2 {
      let number = UInt64(20 + world.site.desktops(of: office).count)
      try world.perform(.restoreDesktop(office, number, alice, saved: false))
      world.settle()
    }
    let present = try #require(world.site.desktops(of: office).first)
    for number in [present.number, 99] {
      #expect(throws: BrokerError.self) {
        try world.perform(.restoreDesktop(office, number, alice, saved: false))
      }
    }
  }
}
