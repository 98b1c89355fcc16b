import Brokering
import Testing

private let office = DesktopID(rawValue: "office-1")

@Suite("What is shown while a desktop starts")
struct ProgressTests {
  private func step(
    _ step: StartProgress.Step, generation: UInt64 = 1
  ) -> SiteEvent {
    .progressed(StartProgress(desktop: office, generation: generation, step: step))
  }

  @Test("each step that is known, and a percentage of what is measured alone")
  func steps() throws {
    var world = try World.with(spares: 0)
    let viewer = world.arrive("alice")
    #expect(world.told[viewer] == "Starting office-1")
    #expect(world.percents[viewer] == nil)
    world.send(step(.copyingDisk(percent: 40)))
    #expect(world.told[viewer] == "Copying the disk of office-1")
    #expect(world.percents[viewer] == 40)
    world.send(step(.copyingDisk(percent: 100)))
    #expect(world.percents[viewer] == 100)
    world.send(step(.switchingOn))
    #expect(world.told[viewer] == "Switching office-1 on")
    #expect(world.percents[viewer] == nil)
    world.settle()
    #expect(world.shown[viewer] == office)
  }

  @Test("a start at its disk gives way to a stop, which is no failure", arguments: [true, false])
  func stoppedAtDisk(startEndsFirst: Bool) throws {
    var world = try World.with(.dedicated, spares: 0)
    let viewer = world.arrive("alice")
    world.send(step(.mergingDisk(percent: 30)))
    #expect(world.told[viewer] == "Merging the disk of office-1")
    #expect(world.percents[viewer] == 30)
    #expect(world.site.start(of: office) == .mergingDisk(percent: 30))
    world.leave(viewer)
    try world.perform(.stopDesktop(office, force: false))
    #expect(world.calls.count == 2, "\(world.calls)")
    world.finish(startEndsFirst ? 0 : 1, well: true)
    world.settle()
    let stopped = try #require(world.desktop("office-1"))
    #expect(stopped.power == .off && stopped.failures == 0 && stopped.problem == nil)
    #expect(world.site.start(of: office) == nil && world.site.underWay.isEmpty)
    world.pass(seconds: 400)
    #expect(world.calls.isEmpty, "it stays off")
    try world.perform(.startDesktop(office))
    world.settle()
    #expect(world.desktop("office-1")?.power == .running)
    #expect(world.desktop("office-1")?.generation == 2)
  }

  @Test(
    "a start that is wanted again while it is given up begins anew, and one without a step ends")
  func wantedAgain() throws {
    var world = try World.with(.dedicated, spares: 0)
    world.leave(world.arrive("alice"))
    try world.perform(.stopDesktop(office, force: false))
    #expect(world.calls.count == 1, "there may be a VMM already, which is told to stop")
    try world.perform(.startDesktop(office))
    world.send(step(.copyingDisk(percent: 5)))
    #expect(world.calls.count == 1)
    try world.perform(.stopDesktop(office, force: false))
    try world.perform(.startDesktop(office))
    #expect(world.calls.count == 2)
    world.finish(0, well: true)
    #expect(world.desktop("office-1")?.failures == 0)
    world.settle()
    #expect(world.desktop("office-1")?.power == .running)
    #expect(world.desktop("office-1")?.generation == 2)
  }

  @Test("who comes in the middle sees how far it is")
  func latecomer() throws {
    var world = try World.with(spares: 0)
    world.leave(world.arrive("alice"))
    world.send(step(.copyingDisk(percent: 70)))
    let viewer = world.arrive("alice")
    #expect(world.percents[viewer] == 70)
  }

  @Test("news of another start is not shown, nor is what came before a failure")
  func otherStarts() throws {
    var world = try World.with(spares: 0)
    let viewer = world.arrive("alice")
    world.send(step(.copyingDisk(percent: 90), generation: 7))
    #expect(world.percents[viewer] == nil)
    world.send(step(.copyingDisk(percent: 90)))
    world.finish(0, well: false)
    #expect(world.told[viewer] == "office-1 did not start; trying again")
    #expect(world.percents[viewer] == nil)
    world.pass(seconds: 5)
    world.send(step(.copyingDisk(percent: 91)))
    #expect(world.percents[viewer] == nil, "generation 1 is over")
    world.send(step(.copyingDisk(percent: 10), generation: 2))
    #expect(world.percents[viewer] == 10)
    world.settle()
    #expect(world.shown[viewer] == office)
  }

  @Test("the broker passes on what its launcher tells")
  func broker() async throws {
    let journal = Journal()
    var launcher = InstantLauncher(journal: journal)
    launcher.startsEnd = false
    let broker = Broker(
      store: MemoryStore(), coding: JSONCoding(), launcher: launcher,
      authenticator: PlainAuthenticator(), clock: HandClock())
    let alice = UserName(rawValue: "alice")
    let task = Task { try await broker.run() }
    try await broker.perform(.createPool(.sample("office", .floating, 1, 1)))
    try await broker.perform(.addUser(alice, verifier: nil))
    try await broker.perform(.entitle(alice, PoolName(rawValue: "office")))
    await broker.viewerArrived(
      JournalViewer(id: ConnectionID(1), journal: journal),
      login: Login(user: alice, pool: nil, peer: PeerAddress("here")))
    await journal.wait(for: "viewer 1 status Starting office-1")
    launcher.progressed.yield(
      StartProgress(desktop: office, generation: 1, step: .copyingDisk(percent: 42)))
    await journal.wait(for: "viewer 1 status Copying the disk of office-1 42%")
    task.cancel()
    try? await task.value
  }
}
