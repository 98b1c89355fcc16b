import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
  @Suite("A process that is killed")
  struct KilledProcessTests {
    @Test("a VMM with a viewer is started again, the viewer stays, and both are told")
    func restarted() async throws {
      try await Site.open { site in
        try await site.furnish()
        try await site.settle()
        let viewer = try await site.logIn()
        let desktop = try #require(try await site.session(of: "alice")?.desktop)
        let colours = try await Self.colours(viewer)
        let machine = try #require(site.machines[desktop])

        try machine.send(.kill)
        try await eventually("the death is noticed", within: 2) {
          site.logged.contains("the VMM was killed by signal 9")
        }
        // The same connection shows the desktop again.
        try await eventually("the desktop is back") {
          guard let now = site.machineNumbers[desktop], now != machine.identifier,
            try await site.desktops.first(where: { $0.id == desktop })?.power == "running"
          else { return false }
          return try await Self.colours(viewer) > colours / 2
        }
        #expect(try await site.session(of: "alice")?.state == "connected")
        #expect(try await site.reasons(for: "alice").contains("desktop-crashed-restarting"))
        viewer.connection.close()
      }
    }

    @Test("where the pool says so, the session ends, the viewer is told, the desktop is recycled")
    func recycled() async throws {
      try await Site.open { site in
        try await site.furnish("lounge", for: "alice", ["--after-crash", "recycle"])
        try await site.settle()
        let viewer = try await site.logIn()
        let desktop = try #require(try await site.session(of: "alice")?.desktop)
        let machine = try #require(site.machines[desktop])

        try machine.send(.kill)
        try await eventually("the session is over") {
          try await site.session(of: "alice") == nil
        }
        // Ends: the display process shows why, until somebody has read it.
        await viewer.dismiss()
        try await site.settle()
        #expect(!site.machineNumbers.values.contains(machine.identifier))
        #expect(try await site.desktops.allSatisfy { $0.owner == nil })
        let reasons = try await site.reasons(for: "alice")
        #expect(
          reasons.contains("desktop-crashed-recycling")
            || reasons.contains("session-ended-by-crash")
        )
      }
    }

    @Test("a display process takes its viewer along; the desktop runs on and is found again")
    func display() async throws {
      try await Site.open { site in
        try await site.furnish()
        try await site.settle()
        let viewer = try await site.logIn()
        let session = try #require(try await site.session(of: "alice"))
        let machine = try #require(site.machineNumbers[session.desktop])
        let display = try #require(site.displays.first)

        try display.send(.kill)
        _ = await viewer.connection.takeRest()
        try await eventually("the session is disconnected") {
          try await site.session(of: "alice")?.state == "disconnected"
        }
        #expect(site.logged.contains("display process ended"))
        _ = try await site.logIn()
        #expect(try await site.session(of: "alice")?.id == session.id)
        #expect(site.machineNumbers[session.desktop] == machine)
      }
    }

    @Test("carreld is followed by one that finds every desktop and returns its user to it")
    func daemon() async throws {
      try await Site.open { site in
        try await site.furnish()
        try await site.settle()
        let viewer = try await site.logIn()
        try await site.settle()
        let session = try #require(try await site.session(of: "alice"))
        let machines = site.machineNumbers
        #expect(machines.count == 2)

        try await site.kill()
        _ = await viewer.connection.takeRest()
        #expect(site.machineNumbers == machines)
        try await site.start()
        try await eventually("the session is disconnected") {
          try await site.session(of: "alice")?.state == "disconnected"
        }
        _ = try await site.logIn()
        #expect(try await site.session(of: "alice")?.id == session.id)
        #expect(try await site.session(of: "alice")?.desktop == session.desktop)
        try await site.settle()
        #expect(site.machineNumbers == machines)
      }
    }

    /// How many colours are on the screen: many on a desktop, few on a message.
    private static func colours(_ viewer: Viewer) async throws -> Int {
      let pixels = try await viewer.screen()
      var found: Set<UInt32> = []
      for index in stride(from: 0, to: pixels.count - 3, by: 4 * 7) {
        found.insert(
          UInt32(pixels[index]) << 16 | UInt32(pixels[index + 1]) << 8 | UInt32(pixels[index + 2]))
      }
      return found.count
    }
  }
}

extension Site {
  /// Reason codes of `carrel explain`.
  func reasons(for user: String) async throws -> [String] {
    try await ask(ExplanationAnswer.self, "explain", "user", user).history.map(\.reason)
  }
}
