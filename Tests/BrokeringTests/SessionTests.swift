import Brokering
import Testing

@Suite("Sessions and what becomes of desktops")
struct SessionTests {
  private let office1 = DesktopID(rawValue: "office-1")

  @Test("a floating desktop is reverted after its session, then goes to somebody else")
  func floatingRecycled() throws {
    var world = try World.with(size: 1, spares: 1)
    world.arrive("alice")
    world.settle()
    let session = try #require(world.site.sessions.sorted.first)
    try world.perform(.endSession(session.id))
    #expect(world.desktop("office-1")?.phase == .recycling)
    #expect(world.calls == [.discard(office1)])
    let bob = world.arrive("bob")
    #expect(world.shown[bob] == nil)
    world.settle()
    #expect(world.shown[bob] == office1)
  }

  @Test("a spare is told whose it became before its viewer is attached, and forgets it after")
  func identified() throws {
    var world = try World.with(size: 1, spares: 1)
    let alice = UserName(rawValue: "alice")
    #expect(world.names[office1] == nil)
    let login = Login(user: alice, pool: nil, peer: PeerAddress("here"))
    let actions = world.site.handle(.viewerArrived(ConnectionID(9), login), now: world.now)
    let told = try #require(
      actions.firstIndex(
        of: .identify(office1, DesktopIdentity(user: alice, keyboardLayout: "en-us"))))
    let attached = try #require(actions.firstIndex(of: .attach(ConnectionID(9), office1)))
    #expect(told < attached)

    world = try World.with(size: 1, spares: 1)
    world.arrive("alice")
    #expect(world.names[office1] == alice)
    let session = try #require(world.site.sessions.sorted.first)
    try world.perform(.endSession(session.id))
    world.settle()
    #expect(world.desktop("office-1")?.phase == .clean)
    #expect(world.names[office1] == nil)
  }

  @Test("a viewer has its pool's keyboard layout before its desktop, and later changes at once")
  func keyboardLayout() throws {
    var world = try World.with(policies: PoolPolicies(keyboardLayout: "de"))
    let login = Login(
      user: UserName(rawValue: "alice"), pool: nil, peer: PeerAddress("here"))
    let actions = world.site.handle(.viewerArrived(ConnectionID(9), login), now: world.now)
    let told = try #require(
      actions.firstIndex(of: .setKeyboardLayout(ConnectionID(9), "de")))
    let attached = try #require(actions.firstIndex(of: .attach(ConnectionID(9), office1)))
    #expect(told < attached)

    world = try World.with(policies: PoolPolicies(keyboardLayout: "de"))
    let viewer = world.arrive("alice")
    #expect(world.layouts[viewer] == "de")
    var change = PoolChange()
    change.policies = PoolPolicies(keyboardLayout: "fr")
    let changed = try world.perform(.updatePool(PoolName(rawValue: "office"), change))
    #expect(changed.contains(.setKeyboardLayout(viewer, "fr")))
    #expect(world.guestLayouts[office1] == "fr")
    #expect(
      try !world.perform(.updatePool(PoolName(rawValue: "office"), change))
        .contains(.setKeyboardLayout(viewer, "fr")))
  }

  @Test("a dedicated desktop keeps its user, disk and number after a session")
  func dedicatedKept() throws {
    var world = try World.with(.dedicated)
    world.arrive("alice")
    let session = try #require(world.site.sessions.sorted.first)
    try world.perform(.endSession(session.id))
    #expect(world.desktop("office-1")?.phase == .assigned)
    #expect(world.desktop("office-1")?.owner?.rawValue == "alice")
    #expect(!world.calls.contains(.discard(office1)))
    let again = world.arrive("alice")
    #expect(world.shown[again] == office1)
  }

  @Test("a guest that shuts down ends its session: floating is recycled")
  func guestShutdownFloating() throws {
    var world = try World.with(size: 1)
    let viewer = world.arrive("alice")
    world.end(office1, .guestShutdown)
    #expect(world.open[viewer] == nil)
    #expect(world.told[viewer] == "Your desktop was shut down.")
    #expect(world.site.sessions.isEmpty)
    #expect(world.desktop("office-1")?.phase == .recycling)
  }

  @Test("a dedicated desktop that shut down stays off until its user logs in again")
  func guestShutdownDedicated() throws {
    var world = try World.with(.dedicated)
    world.arrive("alice")
    world.settle()
    world.end(office1, .guestShutdown)
    #expect(world.desktop("office-1")?.power == .off)
    #expect(world.calls.isEmpty)
    let viewer = world.arrive("alice")
    guard case .start(let request) = try #require(world.calls.first) else {
      Issue.record("it is not started")
      return
    }
    #expect(request.disk == .keep)
    world.settle()
    #expect(world.shown[viewer] == office1)
  }

  @Test("a VMM that dies under its user is started again, and the viewer waits")
  func crashRestart() throws {
    var world = try World.with()
    let viewer = world.arrive("alice")
    world.settle()
    world.end(office1, .crashed("signal 9"))
    #expect(world.open[viewer] != nil)
    #expect(world.told[viewer] == "office-1 stopped unexpectedly; starting it again")
    world.settle()
    #expect(world.desktop("office-1")?.phase == .connected)
    #expect(world.desktop("office-1")?.generation == 2)
    #expect(world.reasons().contains(.desktopCrashedRestarting))
  }

  @Test("where the pool says so, a crash ends the session")
  func crashRecycle() throws {
    var world = try World.with(size: 1, policies: PoolPolicies(afterCrash: .recycle))
    let viewer = world.arrive("alice")
    world.end(office1, .crashed("signal 9"))
    #expect(world.told[viewer] == "Your desktop stopped unexpectedly.")
    #expect(world.desktop("office-1")?.phase == .recycling)
  }

  @Test("a desktop that keeps crashing is given up and its user told")
  func crashLoop() throws {
    var world = try World.with(policies: PoolPolicies(startAttempts: 3))
    let viewer = world.arrive("alice")
    for _ in 0..<3 {
      world.settle()
      world.end(office1, .crashed("triple fault"))
      world.pass(seconds: 10)
    }
    #expect(world.open[viewer] == nil)
    #expect(world.reasons().contains(.desktopGivenUp))
    #expect(world.desktop("office-1")?.owner == nil)
  }

  @Test("crashes that are far apart do not add up")
  func crashesApart() throws {
    var world = try World.with(policies: PoolPolicies(startAttempts: 2))
    let viewer = world.arrive("alice")
    for _ in 0..<5 {
      world.settle()
      world.pass(seconds: 120)
      world.end(office1, .crashed("signal 9"))
      world.pass(seconds: 10)
    }
    #expect(world.open[viewer] != nil)
  }

  @Test("policy: a desktop nobody looks at is suspended, and runs on at login")
  func suspend() throws {
    var world = try World.left(
      with: PoolPolicies(onDisconnect: .suspend, disconnectSeconds: 60))
    #expect(world.site.nextDeadline == world.now.adding(seconds: 60))
    world.pass(seconds: 59)
    #expect(world.desktop("office-1")?.phase == .disconnected)
    world.pass(seconds: 1)
    #expect(world.desktop("office-1")?.phase == .suspended)
    #expect(world.calls == [.suspend(office1)])
    world.settle()
    world.pass(seconds: 3600)
    #expect(world.desktop("office-1")?.power == .off && world.calls.isEmpty)
    let again = world.arrive("alice")
    #expect(world.told[again] == "Waking office-1")
    let request = try #require(world.startRequests.first)
    #expect(request.desktop == office1 && request.resumes && request.disk == .keep)
    world.settle()
    #expect(world.shown[again] == office1)
    #expect(world.desktop("office-1")?.saved == false)
  }

  @Test("what a desktop was suspended to is kept when it cannot go on", arguments: [false, true])
  func cannotWake(exits: Bool) throws {
    var world = try World.left(
      with: PoolPolicies(onDisconnect: .suspend, disconnectSeconds: 60, startAttempts: 3))
    world.pass(seconds: 60)
    world.settle()
    for _ in 0..<3 {
      let viewer = world.arrive("alice")
      for _ in 0..<3 {
        #expect(world.open[viewer] != nil)
        #expect(world.startRequests.last?.resumes == true)
        if exits {
          let generation = try #require(world.desktop("office-1")?.generation)
          let reason = ExitReason.crashed("it had other hardware")
          world.send(
            .exited(DesktopExit(desktop: office1, generation: generation, reason: reason)))
        }
        world.finish(0, well: false)
        world.pass(seconds: 10)
      }
      #expect(world.open[viewer] == nil)
      #expect(world.told[viewer]?.contains("cannot be woken, and is kept") == true)
      let desktop = try #require(world.desktop("office-1"))
      #expect(desktop.phase == .suspended && desktop.saved && desktop.owner?.rawValue == "alice")
      #expect(desktop.problem != nil && desktop.failures == 0)
      #expect(!world.reasons().contains(.desktopGivenUp))
      world.pass(seconds: 3600)
      #expect(world.desktop("office-1")?.power == .off && world.calls.isEmpty)
    }
    #expect(world.reasons().contains(.desktopSleepsOn))
    let again = world.arrive("alice")
    world.settle()
    #expect(world.shown[again] == office1)
    #expect(world.desktop("office-1")?.saved == false)
    #expect(world.desktop("office-1")?.problem == nil)
  }

  @Test("a viewer that comes while a desktop is being suspended sees it wake")
  func suspendOvertaken() throws {
    var world = try World.left(
      with: PoolPolicies(onDisconnect: .suspend, disconnectSeconds: 60))
    world.pass(seconds: 60)
    #expect(world.calls == [.suspend(office1)])
    let again = world.arrive("alice")
    #expect(world.desktop("office-1")?.phase == .connected)
    world.settle()
    #expect(world.desktop("office-1")?.power == .running)
    #expect(world.desktop("office-1")?.generation == 2)
    #expect(world.shown[again] == office1)
  }

  @Test("a desktop that cannot be suspended runs on, and its problem is told")
  func suspendFails() throws {
    var world = try World.left(
      with: PoolPolicies(onDisconnect: .suspend, disconnectSeconds: 60))
    world.pass(seconds: 60)
    world.finish(0, well: false)
    #expect(world.desktop("office-1")?.phase == .disconnected)
    #expect(world.desktop("office-1")?.power == .running)
    #expect(world.desktop("office-1")?.problem == "no answer")
    #expect(world.calls.isEmpty)
    world.pass(seconds: 60)
    #expect(world.calls == [.suspend(office1)])
  }

  @Test("an administrator suspends and wakes a user's desktop; switched off, it starts anew")
  func suspendedByAdministrator() throws {
    var world = try World.with(policies: PoolPolicies())
    let viewer = world.arrive("alice")
    world.settle()
    #expect(throws: BrokerError.self) { try world.perform(.suspendDesktop(office1, force: false)) }
    try world.perform(.suspendDesktop(office1, force: true))
    #expect(world.open[viewer] == nil)
    #expect(world.calls == [.suspend(office1)])
    world.settle()
    #expect(world.desktop("office-1")?.phase == .suspended)
    #expect(throws: BrokerError.self) { try world.perform(.resetDesktop(office1)) }
    try world.perform(.resumeDesktop(office1))
    #expect(world.startRequests.first?.resumes == true)
    world.settle()
    #expect(world.desktop("office-1")?.phase == .disconnected)
    #expect(world.desktop("office-1")?.power == .running)
    try world.perform(.suspendDesktop(office1, force: false))
    world.settle()
    try world.perform(.stopDesktop(office1, force: false))
    try world.perform(.startDesktop(office1))
    world.settle()
    _ = world.arrive("alice")
    #expect(world.startRequests.allSatisfy { !$0.resumes })
  }

  @Test("policy: a session ends some time after its viewer left")
  func endOnDisconnect() throws {
    var world = try World.with(policies: PoolPolicies(onDisconnect: .end, disconnectSeconds: 60))
    let viewer = world.arrive("alice")
    world.leave(viewer)
    world.pass(seconds: 60)
    #expect(world.site.sessions.isEmpty)
    #expect(world.reasons().contains(.sessionEndedByPolicy))
  }

  @Test("a viewer's power button reaches its own desktop and no other")
  func power() throws {
    var world = try World.with()
    let viewer = world.arrive("alice")
    #expect(
      world.site.handle(.powerRequested(viewer, .shutdown), now: world.now)
        .contains(.pressPowerButton(office1)))
    let stranger = ConnectionID(999)
    #expect(world.site.handle(.powerRequested(stranger, .reset), now: world.now).isEmpty)
  }

  @Test("revoking a pool ends the session there; the next login is refused")
  func revoke() throws {
    var world = try World.with()
    let viewer = world.arrive("alice")
    try world.perform(.revoke(UserName(rawValue: "alice"), PoolName(rawValue: "office")))
    #expect(world.told[viewer] == "You may no longer use this desktop.")
    let again = world.arrive("alice")
    #expect(world.open[again] == nil)
  }

  @Test("releasing a dedicated desktop reverts it before anybody else gets it")
  func release() throws {
    var world = try World.with(.dedicated, size: 1, spares: 1)
    world.arrive("alice")
    world.settle()
    #expect(throws: BrokerError.self) {
      try world.perform(.releaseDesktop(office1, force: false))
    }
    try world.perform(.releaseDesktop(office1, force: true))
    let bob = world.arrive("bob")
    #expect(world.shown[bob] == nil)
    world.settle()
    #expect(world.shown[bob] == office1)
    #expect(world.traces[office1] == [UserName(rawValue: "bob")])
  }
}

extension World {
  /// Alice was there, and her desktop runs on.
  fileprivate static func left(with policies: PoolPolicies) throws -> World {
    var world = try World.with(policies: policies)
    let viewer = world.arrive("alice")
    world.settle()
    world.leave(viewer)
    return world
  }

  /// What was asked of the launcher and is not done.
  fileprivate var startRequests: [LaunchRequest] {
    calls.compactMap { if case .start(let request) = $0 { request } else { nil } }
  }
}
