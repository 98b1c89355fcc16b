import Brokering
import Testing

@Suite("Logins")
struct LoginTests {
  @Test("a login gets a clean spare, and the pool makes another")
  func spare() throws {
    var world = try World.with(size: 3, spares: 1)
    let viewer = world.arrive("alice")
    #expect(world.shown[viewer]?.rawValue == "office-1")
    #expect(world.desktop("office-1")?.phase == .connected)
    #expect(world.desktop("office-2")?.phase == .provisioning)
    #expect(world.reasons().contains(.loginCleanSpare))
  }

  @Test("a login without a spare sees progress until its desktop runs")
  func onDemand() throws {
    var world = try World.with(size: 2, spares: 0)
    let viewer = world.arrive("alice")
    #expect(world.shown[viewer] == nil)
    #expect(world.told[viewer] == "Starting office-1")
    guard case .start(let request) = try #require(world.calls.first) else {
      Issue.record("nothing is started")
      return
    }
    #expect(request.user?.rawValue == "alice")
    world.settle()
    #expect(world.shown[viewer]?.rawValue == "office-1")
  }

  @Test("a user who left comes back to the same desktop")
  func comeBack() throws {
    var world = try World.with()
    let first = world.arrive("alice")
    let desktop = world.shown[first]
    world.leave(first)
    world.settle()
    #expect(world.desktop("office-1")?.phase == .disconnected)
    let second = world.arrive("alice")
    #expect(world.shown[second] == desktop)
    #expect(world.site.sessions.count == 1)
    #expect(world.reasons().contains(.loginExistingDesktop))
  }

  @Test("the newer of two logins takes over and the older is told")
  func takeover() throws {
    var world = try World.with()
    let older = world.arrive("alice", from: "10.0.0.1")
    let newer = world.arrive("alice", from: "10.0.0.2")
    #expect(world.open[older] == nil)
    #expect(world.told[older] == "Your desktop was opened from 10.0.0.2.")
    #expect(world.shown[newer]?.rawValue == "office-1")
    // What the gateway reports of the closed one changes nothing any more.
    world.send(.viewerLeft(older, reason: "closed"))
    #expect(world.desktop("office-1")?.phase == .connected)
  }

  @Test("a pool that refuses takeovers refuses the newer login")
  func refuseTakeover() throws {
    var world = try World.with(policies: PoolPolicies(takeover: .refuse))
    let older = world.arrive("alice", from: "10.0.0.1")
    let newer = world.arrive("alice", from: "10.0.0.2")
    #expect(world.open[newer] == nil)
    #expect(world.told[newer]?.contains("10.0.0.1") == true)
    #expect(world.shown[older]?.rawValue == "office-1")
  }

  @Test("with a full pool viewers wait in order, and the first gets the first free desktop")
  func queue() throws {
    var world = try World.with(size: 1, spares: 1)
    world.arrive("alice")
    world.settle()
    let bob = world.arrive("bob")
    let carol = world.arrive("carol")
    #expect(world.told[bob] == "All desktops are in use. You are next.")
    #expect(world.told[carol] == "All desktops are in use. 1 before you.")
    let session = try #require(world.site.sessions.sorted.first)
    try world.perform(.endSession(session.id))
    world.settle()
    #expect(world.shown[bob]?.rawValue == "office-1")
    #expect(world.shown[carol] == nil)
    #expect(world.told[carol] == "All desktops are in use. You are next.")
  }

  @Test("a viewer that stops waiting makes room for the next")
  func leaveQueue() throws {
    var world = try World.with(size: 1, spares: 0)
    world.arrive("alice")
    let bob = world.arrive("bob")
    let carol = world.arrive("carol")
    world.leave(bob)
    #expect(world.told[carol] == "All desktops are in use. You are next.")
  }

  @Test("who is unknown, disabled or not entitled is refused with the reason")
  func refusals() throws {
    var world = try World.with()
    try world.perform(.addUser(UserName(rawValue: "dave"), verifier: nil))
    try world.perform(.setDisabled(UserName(rawValue: "bob"), true))
    for (user, text) in [
      ("dave", "dave may not use any pool."), ("bob", "The account of bob is disabled."),
      ("eve", "There is no user eve."),
    ] {
      let viewer = world.arrive(user)
      #expect(world.open[viewer] == nil)
      #expect(world.told[viewer] == text)
    }
    #expect(world.site.sessions.isEmpty)
  }

  @Test("a login may choose the pool")
  func choosePool() throws {
    var world = try World.with()
    try world.perform(.createPool(.sample("rescue", .floating, 1, 1)))
    try world.add("alice", to: "rescue")
    world.settle()
    let viewer = world.arrive("alice", pool: "rescue")
    #expect(world.shown[viewer]?.rawValue == "rescue-1")
    let other = world.arrive("alice", pool: "office")
    #expect(world.shown[other]?.rawValue == "office-1")
    #expect(world.shown[viewer]?.rawValue == "rescue-1")
  }

  @Test("a manual pool gives a desktop only to whom it was assigned")
  func manual() throws {
    var world = try World.with(.manual)
    let early = world.arrive("alice")
    #expect(world.open[early] == nil)
    try world.perform(
      .assignDesktop(DesktopID(rawValue: "office-1"), UserName(rawValue: "alice")))
    let viewer = world.arrive("alice")
    #expect(world.shown[viewer]?.rawValue == "office-1")
  }

  @Test("a dedicated pool that is full refuses who has no desktop there")
  func dedicatedFull() throws {
    var world = try World.with(.dedicated, size: 1, spares: 0)
    world.arrive("alice")
    let bob = world.arrive("bob")
    #expect(world.open[bob] == nil)
    #expect(world.reasons().contains(.loginRefusedNoDesktop))
  }
}
