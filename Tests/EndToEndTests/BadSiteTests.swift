import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
  @Suite("A site that cannot be")
  struct BadSiteTests {
    @Test(
      "images that no desktop can start from are refused before there is a pool",
      arguments: BadGuest.all)
    func image(_ guest: BadGuest) async throws {
      // That memory is too small is known only when a desktop starts.
      guard guest.what != "a segment outside RAM" else { return }
      try await Site.open { site in
        let path = site.directory.path("image")
        if let bytes = guest.file(try Files.read(try DemoDesktop.path())) {
          try site.directory.write(bytes, to: "image")
        }
        let outcome = try await site.carrel("pool", "create", "lounge", "--image", path)
        #expect(outcome.exit == .exited(4))
        #expect(outcome.complaint.contains("image '\(path)'"))
        #expect(try await site.ask([PoolAnswer].self, "pool", "list").isEmpty)
        #expect(site.desktopDirectories().isEmpty)
      }
    }

    @Test("a desktop whose kernel does not fit its memory says so, and nothing runs")
    func tooSmall() async throws {
      try await Site.open { site in
        let outcome = try await site.carrel(
          "pool", "create", "lounge", "--image", try DemoDesktop.path(), "--memory", "1M",
          "--size", "1", "--spares", "1", "--start-attempts", "1")
        #expect(outcome.exit == .exited(6))
        #expect(outcome.complaint.contains("give it more memory"), "\(outcome.complaint)")
        #expect(site.machines.isEmpty)
        #expect(try await site.carrel("pool", "delete", "lounge").isSuccess)
        #expect(site.desktopDirectories().isEmpty)
      }
    }

    @Test(
      "a disk that is full while a pool is made is named; with room again the pool completes",
      .needsRoot)
    func fullDisk() async throws {
      let disk = try SmallDisk(kibibytes: 6 << 10)
      try await Site.open(state: disk.path + "/state") { site in
        let image = try site.directory.write(
          [UInt8](repeating: 0x5A, count: 4 << 20), to: "image.raw")
        try await eventually("the disk is nearly full") {
          try site.directory.run("head -c 3M /dev/zero > \(disk.path)/filler").status == 0
        }
        let outcome = try await site.carrel(
          "pool", "create", "lounge", "--image", image, "--memory", "16M", "--size", "1",
          "--spares", "1")
        #expect(outcome.exit == .exited(6))
        #expect(outcome.complaint.contains("there is no room for desktop 'lounge-1'"))
        #expect(outcome.complaint.contains("free some under \(site.state)"))
        #expect(site.machines.isEmpty)
        #expect(!Files.exists(site.state + "/desktops/lounge-1/disk.raw"))
        #expect(!Files.exists(site.state + "/desktops/lounge-1/disk.raw.new"))
        try disk.empty()
        try await site.settle()
        #expect(site.machines.count == 1)
      }
    }

    @Test(
      "a record that does not fit on the disk is refused, and nothing is changed",
      .needsRoot)
    func fullStore() async throws {
      let disk = try SmallDisk(kibibytes: 2 << 10)
      try await Site.open(state: disk.path + "/state") { site in
        try disk.fill()
        var outcome = try await site.carrel("user", "add", "u0", "--no-password")
        var number = 0
        // What SQLite has room for in its files already is still taken.
        while outcome.isSuccess, number < 200 {
          number += 1
          outcome = try await site.carrel("user", "add", "u\(number)", "--no-password")
        }
        #expect(outcome.exit == .exited(5))
        #expect(outcome.complaint.contains("nothing was changed"))
        try disk.empty()
        let pool = try await site.carrel(
          "pool", "create", "lounge", "--image", try DemoDesktop.path(), "--no-wait")
        #expect(pool.isSuccess, "\(pool.complaint)")
        #expect(try await site.carrel("user", "show", "u\(number)").exit == .exited(2))
      }
    }

    @Test("a port that is taken is named, and carreld ends")
    func port() async throws {
      let taken = try TakenPort()
      let outcome = try await Self.carreld(
        "gateway:\n  listen: [\"127.0.0.1:\(taken.number)\"]\n  web: []\n")
      #expect(outcome.exit == .exited(1))
      #expect(outcome.complaint.contains("127.0.0.1:\(taken.number)"))
      #expect(outcome.complaint.contains("end whatever uses the port"))
    }

    @Test("a key that there is not is shown with file, line and what may have been meant")
    func key() async throws {
      let outcome = try await Self.carreld("# my site\ngateway:\n  lisen: [\"127.0.0.1:0\"]\n")
      #expect(outcome.exit == .exited(78))
      #expect(outcome.complaint.contains("carrel.yaml:3"), "\(outcome.complaint)")
      #expect(outcome.complaint.contains("lisen") && outcome.complaint.contains("listen"))
    }

    /// Runs carreld, which is to end by itself, and checks that it leaves no socket.
    private static func carreld(_ settings: String) async throws -> Outcome {
      let directory = try TemporaryDirectory()
      let text = """
        state_directory: \(directory.path("state"))
        runtime_directory: \(directory.path("run"))
        programs:
          vmm: \(Programs.built("carrel-vmm"))
          display: \(Programs.built("carrel-display"))

        """
      try directory.write(Array((settings + text).utf8), to: "carrel.yaml")
      let outcome = try await Program.run(
        "/usr/bin/timeout",
        ["20", Programs.built("carreld"), "--config", directory.path("carrel.yaml")],
        in: directory)
      #expect(!Files.exists(directory.path("run/control.sock")))
      return outcome
    }
  }
}
