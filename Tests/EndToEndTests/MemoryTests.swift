import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
  /// carreld and all its desktops have less memory than they could use.
  @Suite("A host that is short of memory")
  struct MemoryTests {
    static let keys: Set = [
      "memory.overcommit_ratio", "memory.reserve_mib", "memory.watermark_percent",
      "memory.critical_percent",
    ]

    private static let totalMiB = 768
    private static let configuration = """
      memory:
        overcommit_ratio: 3
        reserve_mib: 64
        watermark_percent: 20
        critical_percent: 10
      """

    @Test(
      "suspends what nobody looks at while guests take all that they may; who is there stays",
      .needsMemoryGroup)
    func pressure() async throws {
      let group = try MemoryGroup(limitMiB: Self.totalMiB)
      do {
        try await Site.open(
          Site.Settings(more: Self.configuration, before: group.entering)
        ) { try await crowd($0, group) }
      } catch {
        _ = group.remove()
        throw error
      }
      try await eventually("the group is empty") { group.remove() }
    }

    private func crowd(_ site: Site, _ group: MemoryGroup) async throws {
      let before = try await memory(site)
      #expect(before.totalMiB == Self.totalMiB && before.limitMiB == 3 * Self.totalMiB)
      #expect(before.reserveMiB == 64 && before.state == "ok")
      try await site.furnish()
      try await site.furnish(for: "bob")
      var present = [try await site.logIn("alice")]
      let bob = try await site.logIn("bob")
      bob.connection.close()
      try await phase(of: "bob", is: "disconnected", site)
      try await site.settle()
      let alice = try await desktop(of: "alice", site)
      let machine = try #require(site.machineNumbers[alice])

      // What its guest leaves, when it has taken everything, is between the two marks.
      let size = try await memory(site).availableMiB - Self.totalMiB / 10 - 60
      let guest = SmallGuest.dirtying(memoryMiB: size)
      let image = try site.directory.write(guest, to: "greedy.elf")
      try await site.repeatable([
        "pool", "create", "barn", "--kind", "dedicated", "--image", image, "--memory", "\(size)M",
        "--size", "2", "--spares", "0",
      ])
      try await doctorWarns(site)
      for user in ["carol", "dave"] {
        try await site.repeatable(["user", "add", user, "--no-password"])
        try await site.repeatable(["entitle", user, "barn"])
      }
      let carol = try await site.logIn("carol")
      try await phase(of: "bob", is: "suspended", site)
      let reasons = try await site.reasons(for: "bob")
      #expect(reasons.contains("desktop-suspended-memory"))
      // A spare went before, and may be back.
      let log = site.logged
      let spare = try #require(log.firstRange(of: "desktop-discarded-memory"))
      let idle = try #require(log.firstRange(of: "desktop-suspended-memory"))
      #expect(spare.lowerBound < idle.lowerBound)
      #expect(try await site.session(of: "carol")?.state == "connected")

      // Another of that size has no room beside the first, which nobody looks at now.
      carol.connection.close()
      let dave = try await site.logIn("dave")
      try await phase(of: "carol", is: "suspended", site)
      #expect(try await site.session(of: "dave")?.state == "connected")
      dave.connection.close()
      present += [try await site.logIn("carol"), try await site.logIn("bob")]

      #expect(try await site.session(of: "alice")?.state == "connected")
      #expect(site.machineNumbers[alice] == machine)
      #expect(try group.processesEnded() == 0)
      withExtendedLifetime(present) {}
    }

    private func doctorWarns(_ site: Site) async throws {
      let check = "\"memory of pools\""
      let fitting = try await site.carrel("doctor", "--json").output
      #expect(fitting.contains(check))
      #expect(!fitting.contains("some who log in wait"))
      try await site.repeatable(["pool", "set", "lounge", "--size", "200"])
      #expect(try await site.carrel("doctor", "--json").output.contains("some who log in wait"))
    }

    private func memory(_ site: Site) async throws -> StatusAnswer.Memory {
      try #require(try await site.ask(StatusAnswer.self, "status").memory)
    }

    private func desktop(of user: String, _ site: Site) async throws -> String {
      try #require(try await site.session(of: user)).desktop
    }

    private func phase(of user: String, is phase: String, _ site: Site) async throws {
      try await eventually("\(user)'s desktop is \(phase)") {
        try await site.session(of: user)?.state == phase
      }
    }
  }
}
