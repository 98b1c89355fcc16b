import LinuxSystem
import TestSupport
import Testing

/// A step of carreld, and how many times it is passed before the process is killed there.
struct Failpoint: CustomTestStringConvertible, Sendable {
  let name: String
  let pass: Int

  var testDescription: String { "\(name):\(pass)" }

  /// Every step there is; those of the store once early, once in the middle, once late.
  static let all: [Failpoint] =
    ["begin", "write", "before", "after"].flatMap { step in
      [1, 5, 12].map { Failpoint(name: "store.commit.\(step)", pass: $0) }
    }
    + [2, 9].map { Failpoint(name: "broker.decided", pass: $0) }
    + ["created", "recorded", "prepared", "spawn.before", "spawn.after", "ready"].flatMap { step in
      [1, 2].map { Failpoint(name: "supervisor.\(step)", pass: $0) }
    }
    + [
      "display.before", "display.after", "identify.before", "identify.after", "end", "discard",
      "survey",
    ].map { Failpoint(name: "supervisor.\($0)", pass: 1) }
    + ["key", "certificate"].flatMap { file in
      ["begin", "before", "after"].map { Failpoint(name: "identity.\(file).\($0)", pass: 1) }
    }

  /// The steps of a start that finds a user's desktop and a spare running.
  static let recovery: [Failpoint] = [
    Failpoint(name: "supervisor.survey", pass: 1), Failpoint(name: "supervisor.adopt", pass: 1),
    Failpoint(name: "supervisor.adopt", pass: 2), Failpoint(name: "store.commit.begin", pass: 1),
    Failpoint(name: "store.commit.write", pass: 1), Failpoint(name: "store.commit.after", pass: 1),
    Failpoint(name: "broker.decided", pass: 1),
  ]
}

/// What an administrator and a user do, and what must hold all the while.
private final class Day {
  let site: Site
  private(set) var viewer: Viewer?
  /// The user's desktop, from login until the end of the session is asked for.
  private(set) var session: SessionAnswer?
  private(set) var isEnding = false
  /// VMMs that a user was let in to.
  private(set) var touched: Set<Int32> = []

  init(_ site: Site) { self.site = site }

  func morning() async throws {
    try await site.furnish()
    try await site.settle()
    try await check()
  }

  func logIn() async throws {
    viewer = try await site.logIn()
    session = try await site.session(of: "alice")
    try await check()
  }

  func evening() async throws {
    try await check()
    guard let session = try await site.session(of: "alice") else { return }
    isEnding = true
    try await site.repeatable(["session", "end", session.id])
    try await site.settle()
    try await check()
    if let number = site.machineNumbers[session.desktop] { #expect(!touched.contains(number)) }
    self.session = nil
  }

  func close() async throws {
    isEnding = true
    let outcome = try await site.carrel("pool", "delete", "lounge")
    guard outcome.isSuccess || outcome.exit == .exited(2) else {
      throw SiteError("pool delete: \(outcome.complaint)")
    }
  }

  /// What a user touched is never clean without having been started anew.
  func check() async throws {
    let desktops = try await site.desktops
    let numbers = site.machineNumbers
    for desktop in desktops {
      guard let number = numbers[desktop.id] else { continue }
      if desktop.owner != nil { touched.insert(number) }
      if desktop.phase == "clean" {
        #expect(!touched.contains(number), "\(desktop.id) is clean, but was touched")
      }
    }
  }
}

extension EndToEnd {
  @Suite("carreld killed at any step")
  struct FailpointTests {
    @Test(
      "loses no desktop, repairs its records, and leaves nothing behind", arguments: Failpoint.all)
    func killed(at point: Failpoint) async throws {
      try await Site.open(failpoint: point.testDescription) { site in
        let day = Day(site)
        do {
          try await day.morning()
          try await day.logIn()
          try await day.evening()
          try await day.close()
        } catch {
          try await eventually("\(point.testDescription) after: \(error)", within: 30) {
            !site.isRunning
          }
        }
        #expect(try await site.daemonEnd() == .signalled(.kill), "the step was not reached")
        try await Self.recover(site, day)
      }
    }

    @Test(
      "a second time, at any step of its recovery, loses none either", arguments: Failpoint.recovery
    )
    func killedAgain(at point: Failpoint) async throws {
      try await Site.open { site in
        let day = Day(site)
        try await day.morning()
        try await day.logIn()
        try await site.kill()
        let machines = site.machineNumbers
        #expect(machines.count == 2)
        try await site.start(failpoint: point.testDescription)
        #expect(try await site.daemonEnd() == .signalled(.kill), "the step was not reached")
        #expect(site.machineNumbers == machines)
        try await Self.recover(site, day)
      }
    }

    private static func recover(_ site: Site, _ day: Day) async throws {
      let before = site.machineNumbers
      let session = day.session
      try await site.start()
      try await day.morning()
      if !day.isEnding {
        let now = site.machineNumbers
        for (desktop, number) in before {
          #expect(now[desktop] == number, "\(desktop) did not run on")
        }
      }
      try await day.logIn()
      if let session, !day.isEnding {
        #expect(day.session?.desktop == session.desktop)
        #expect(site.machineNumbers[session.desktop] == before[session.desktop])
      }
      try await day.evening()
      try await day.close()
      #expect(try await site.desktops.isEmpty)
      #expect(site.machines.isEmpty)
      #expect(site.desktopDirectories().isEmpty)
    }
  }
}
