import ControlAPI
import Foundation
import Testing

@Suite("carreld killed")
struct CrashTests {
  static let failpoints = [
    "store.commit.begin", "store.commit.write", "store.commit.before", "store.commit.after",
    "broker.decided", "launcher.start.before", "launcher.start.after", "launcher.discard",
  ]

  @Test(
    "killed at any instant, it repairs its records when it is back",
    arguments: failpoints, [1, 4])
  func failpoint(name: String, time: Int) throws {
    let home = try Home()
    let first = try RunningDaemon(home, failpoint: "\(name):\(time)")
    // Some of these are not reached any more; those that are may fail.
    var done: [String] = []
    for command in Self.story(home.image) {
      let result = try home.run("carrel", command)
      if result.code == 0 { done.append(command.joined(separator: " ")) }
    }
    first.kill()

    let second = try RunningDaemon(home)
    defer { second.stop() }
    try checkAtRest(home)
    // What was answered with success was stored.
    let users = try home.done("user", "list", "--json").json([UserDocument].self)
    #expect(!users.isEmpty || !done.contains { $0.hasPrefix("user add") })
    // And everything can be taken down again.
    for pool in try home.done("pool", "list", "--json").json([PoolDocument].self) {
      try home.done("pool", "delete", pool.name, "--force")
    }
    #expect(home.running.isEmpty)
  }

  private static func story(_ image: String) -> [[String]] {
    [
      ["user", "add", "alice", "--no-password"],
      ["pool", "create", "office", "--image", image, "--size", "3", "--spares", "2", "--no-wait"],
      ["entitle", "alice", "office"],
      ["desktop", "assign", "office-1", "alice"],
      ["desktop", "release", "office-1", "--no-wait"],
      ["desktop", "delete", "office-2", "--no-wait"],
    ]
  }

  /// Waits until nothing changes any more; then host and records must agree.
  private func checkAtRest(_ home: Home) throws {
    let clock = ContinuousClock()
    let deadline = clock.now + .seconds(20)
    var desktops: [DesktopDocument] = []
    repeat {
      desktops = try home.done("desktop", "list", "--json").json([DesktopDocument].self)
      let pools = try home.done("pool", "list", "--json").json([PoolDocument].self)
      let spares = pools.allSatisfy { $0.draining || $0.desktops.clean >= $0.spares }
      if spares, desktops.allSatisfy({ $0.phase == "clean" || $0.phase == "assigned" }) { break }
    } while clock.now < deadline
    #expect(desktops.allSatisfy { $0.power == "running" }, "\(desktops)")
    #expect(desktops.map(\.id).sorted() == home.running)
  }

  @Test("killed and started again, desktops have not even noticed")
  func readopts() throws {
    let home = try Home()
    let first = try RunningDaemon(home)
    try home.done("pool", "create", "office", "--image", home.image, "--spares", "2")
    let before = try home.done("desktop", "list", "--json").json([DesktopDocument].self)
    first.kill()
    #expect(home.running == ["office-1", "office-2"])
    let second = try RunningDaemon(home)
    let after = try home.done("desktop", "list", "--json").json([DesktopDocument].self)
    #expect(before.map(\.generation) == after.map(\.generation))
    #expect(before.map(\.phase) == after.map(\.phase))
    #expect(second.output.contains("recovered-running"))
    second.stop()
  }
}
