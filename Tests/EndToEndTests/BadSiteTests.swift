import Foundation
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

    @Test("a kernel that does not fit the memory is refused for a pool, and for a change of one")
    func tooSmall() async throws {
      try await Site.open { site in
        let kernel = try DemoDesktop.path()
        let refused = try await site.carrel(
          "pool", "create", "lounge", "--image", kernel, "--memory", "1M")
        #expect(refused.exit == .exited(4))
        #expect(refused.complaint.contains("image '\(kernel)' wants"), "\(refused.complaint)")
        #expect(refused.complaint.contains("memory of a desktop of 1 MiB: give the pool more"))
        #expect(try await site.ask([PoolAnswer].self, "pool", "list").isEmpty)
        #expect(site.desktopDirectories().isEmpty)

        try await site.furnish()
        try await site.settle()
        let machines = site.machineNumbers
        let change = try await site.carrel("pool", "set", "lounge", "--memory", "1M")
        #expect(change.exit == .exited(4))
        #expect(change.complaint.contains("give the pool more with --memory"))
        #expect(site.machineNumbers == machines)
      }
    }

    @Test("a pool whose desktops do not start is taken back, unless nobody waits for them")
    func startless() async throws {
      try await Site.open { site in
        // The video window: no place for a kernel, as only the VMM knows.
        let image = try site.directory.write(
          BadGuest.moved(try Files.read(try DemoDesktop.path()), to: 0xA_0000), to: "image")
        let words = ["pool", "create", "lounge", "--image", image, "--size", "1"]
        let outcome = try await site.carrel(words)
        #expect(outcome.exit == .exited(6))
        #expect(outcome.complaint.contains("pool 'lounge' was not made"), "\(outcome.complaint)")
        #expect(outcome.complaint.contains("\(image) has a segment"))
        #expect(try await site.ask([PoolAnswer].self, "pool", "list").isEmpty)
        #expect(site.machines.isEmpty)
        #expect(site.desktopDirectories().isEmpty)

        #expect(try await site.carrel(words + ["--no-wait"]).isSuccess)
        try await eventually("the pool says why") {
          try await site.pool("lounge").problem?.contains("\(image) has a segment") == true
        }
        #expect(try await site.carrel("pool", "delete", "lounge").isSuccess)
      }
    }

    @Test("without /dev/kvm a pool is refused with the remedy", .needsRoot)
    func withoutKVM() async throws {
      let settings = Site.Settings(before: "mount -t tmpfs none /dev && mknod /dev/null c 1 3")
      try await Site.open(settings) { site in
        let outcome = try await site.carrel(
          "pool", "create", "lounge", "--image", try DemoDesktop.path())
        #expect(outcome.exit == .exited(6))
        #expect(outcome.complaint.contains("there is no /dev/kvm"), "\(outcome.complaint)")
        #expect(outcome.complaint.contains("modprobe kvm_intel"))
        #expect(try await site.ask([PoolAnswer].self, "pool", "list").isEmpty)
        #expect(site.desktopDirectories().isEmpty)
      }
    }

    @Test("a pool that the disk has no room for is refused; with room it is made", .needsRoot)
    func fullDisk() async throws {
      let disk = try SmallDisk(kibibytes: 8 << 10)
      try await Site.open(state: disk.path + "/state") { site in
        let image = try site.directory.write(
          [UInt8](repeating: 0x5A, count: 3 << 20), to: "image.raw")
        _ = try site.directory.run("head -c 5M /dev/zero > \(disk.path)/filler")
        let words = [
          "pool", "create", "lounge", "--image", image, "--memory", "16M", "--size", "3",
        ]
        let outcome = try await site.carrel(words)
        #expect(outcome.exit == .exited(5))
        #expect(
          outcome.complaint.contains("pool 'lounge' has no room for 1 spare"),
          "\(outcome.complaint)")
        #expect(outcome.complaint.contains("make room there"))
        #expect(try await site.ask([PoolAnswer].self, "pool", "list").isEmpty)
        #expect(site.desktopDirectories().isEmpty)

        try disk.empty()
        #expect(try await site.carrel(words).isSuccess)
        try await site.settle()
        #expect(site.machines.count == 1)
        let change = try await site.carrel("pool", "set", "lounge", "--spares", "3")
        #expect(change.exit == .exited(5))
        #expect(change.complaint.contains("has no room for 2 spare"), "\(change.complaint)")
        #expect(try await site.pool("lounge").spares == 1)

        // Holes take nothing, and copies have them too.
        let (status, _) = try site.directory.run("truncate -s 64M sparse.raw")
        #expect(status == 0)
        let sparse = try await site.carrel(
          "pool", "create", "sparse", "--image", site.directory.path("sparse.raw"), "--memory",
          "16M", "--size", "1")
        #expect(sparse.isSuccess, "\(sparse.complaint)")
      }
    }

    @Test(
      "a disk that is full although it did not look so leaves no pool, and no piece", .needsRoot)
    func smallerDisk() async throws {
      let place = try TemporaryDirectory()
      let (state, desktops) = (place.path("state"), place.path("state/desktops"))
      let settings = Site.Settings(
        before: "mkdir -p -m 700 \(desktops) && mount -t tmpfs -o size=1m none \(desktops)")
      try await Site.open(settings, state: state) { site in
        let image = try site.directory.write(
          [UInt8](repeating: 0x5A, count: 3 << 20), to: "image.raw")
        let outcome = try await site.carrel(
          "pool", "create", "lounge", "--image", image, "--memory", "16M", "--size", "1")
        #expect(outcome.exit == .exited(6))
        #expect(outcome.complaint.contains("there is no room for desktop 'lounge-1'"))
        #expect(outcome.complaint.contains("free some under"), "\(outcome.complaint)")
        #expect(try await site.ask([PoolAnswer].self, "pool", "list").isEmpty)
        #expect(site.machines.isEmpty)
        let daemon = try #require(site.daemonNumber)
        let left = try FileManager.default.contentsOfDirectory(
          atPath: "/proc/\(daemon)/root\(desktops)")
        #expect(left.isEmpty, "\(left)")
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
