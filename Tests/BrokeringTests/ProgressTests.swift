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
