import Brokering
import Testing

@Suite("Going back to a snapshot")
struct SnapshotTests {
  private let name = SnapshotName(rawValue: "before")
  private let office1 = DesktopID(rawValue: "office-1")

  private var revert: AdminCommand { .revertDesktop(office1, name, force: true) }

  /// The start that the launcher is asked for.
  private func start(in world: World) -> LaunchRequest? {
    for case .start(let request) in world.calls where request.desktop == office1 {
      return request
    }
    return nil
  }

  @Test("ends the desktop's VMM, starts it from there, and keeps session and viewer")
  func running() throws {
    var world = try World.with(size: 1)
    let alice = world.arrive("alice")
    world.settle()
    let session = world.site.sessions.sorted.map(\.id)
    let error = #expect(throws: BrokerError.self) {
      try world.perform(.revertDesktop(office1, name, force: false))
    }
    #expect(error?.context.contains("'carrel snapshot revert office-1 before --force'") == true)
    try world.perform(revert)
    #expect(world.calls == [.revert(office1, name)])
    #expect(world.desktop("office-1")?.reverting == name)
    world.finish(0, well: true)
    let request = try #require(start(in: world))
    #expect(request.resumes && request.disk == .keep)
    #expect(world.desktop("office-1")?.phase == .connected)
    world.settle()
    #expect(world.shown[alice] == office1 && world.site.sessions.sorted.map(\.id) == session)
    let desktop = try #require(world.desktop("office-1"))
    #expect(desktop.power == .running && desktop.reverting == nil && !desktop.saved)
    #expect(desktop.failures == 0 && desktop.problem == nil)
  }

  @Test("works for a desktop that is suspended, that is off, and that cannot go on")
  func resting() throws {
    var world = try World.with(.dedicated, size: 1, policies: PoolPolicies(startAttempts: 1))
    let alice = world.arrive("alice")
    world.settle()
    world.leave(alice)
    try world.perform(.suspendDesktop(office1, force: false))
    world.settle()
    #expect(world.desktop("office-1")?.saved == true)
    try world.perform(revert)
    world.settle()
    #expect(world.desktop("office-1")?.power == .running)
    try world.perform(.stopDesktop(office1, force: true))
    world.settle()
    try world.perform(revert)
    world.finish(0, well: true)
    world.finish(0, well: false)
    #expect(world.desktop("office-1")?.phase == .suspended)
    try world.perform(revert)
    world.settle()
    #expect(world.desktop("office-1")?.power == .running)
    #expect(world.desktop("office-1")?.owner?.rawValue == "alice")
  }

  @Test("that fails leaves the desktop as it was")
  func failing() throws {
    var world = try World.with(size: 1)
    let alice = world.arrive("alice")
    world.settle()
    try world.perform(revert)
    world.finish(0, well: false)
    let desktop = try #require(world.desktop("office-1"))
    #expect(desktop.reverting == nil && desktop.problem == "gone" && desktop.power == .running)
    #expect(world.shown[alice] == office1)
  }

  @Test("is done again by a carreld that was killed on the way")
  func recovery() throws {
    var world = try World.with(size: 1)
    world.arrive("alice")
    world.settle()
    try world.perform(revert)
    try world.restartBroker()
    #expect(world.calls == [.revert(office1, name)])
    world.finish(0, well: true)
    #expect(start(in: world)?.resumes == true)
  }

  @Test("is not for a desktop that is being thrown away, and does not outlive its owner")
  func dirty() throws {
    var world = try World.with(.dedicated, size: 1)
    world.arrive("alice")
    world.settle()
    try world.perform(revert)
    try world.perform(.releaseDesktop(office1, force: true))
    #expect(world.desktop("office-1")?.reverting == nil)
    #expect(throws: BrokerError.self) { try world.perform(revert) }
    world.settle()
    #expect(world.desktop("office-1")?.owner == nil && world.desktop("office-1")?.phase == .clean)
  }

  @Test("asks for the machine that the snapshot is of")
  func shapes() throws {
    let pool = Pool.sample("office")
    let shape = DesktopShape(of: pool)
    #expect(shape.difference(from: shape) == nil)
    for (change, reason) in [
      ({ $0.memoryMiB += 1 }, "MiB"), ({ $0.cpus = 2 }, "processors"),
      ({ $0.hardware.usb = true }, "hardware"), ({ $0.hardware.networkQueues = 2 }, "hardware"),
      ({ $0.image = Image(kind: .kernel, path: "/other") }, "another image"),
    ] as [((inout Pool) -> Void, String)] {
      var other = pool
      change(&other)
      #expect(shape.difference(from: DesktopShape(of: other))?.contains(reason) == true)
    }
  }
}
