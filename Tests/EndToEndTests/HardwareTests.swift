import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
  @Suite("A pool whose machines have other parts")
  struct HardwareTests {
    @Test(
      "has desktops with UEFI, virtio and a network; the variables live as the disk does",
      arguments: ["dedicated", "floating"])
    func parts(_ kind: String) async throws {
      try await Site.open { site in
        let image = try site.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "disk.raw")
        try await site.repeatable(["user", "add", "alice", "--no-password"])
        try await site.repeatable([
          "pool", "create", "study", "--kind", kind, "--image", image, "--memory", "64M", "--size",
          "2", "--spares", "1", "--stop-grace", "1", "--firmware", "uefi", "--video",
          "virtio,outputs=2", "--network", "user", "--network-queues", "2", "--audio", "virtio",
          "--usb", "on", "--disk-bus", "virtio",
        ])
        try await site.repeatable(["entitle", "alice", "study"])
        let viewer = try await site.logIn("alice")
        let first = try #require(try await site.session(of: "alice")).desktop
        _ = try await viewer.screen()
        let machine = try #require(site.machines[first]).identifier
        let line = try Files.read("/proc/\(machine)/cmdline").split(separator: 0)
          .map { String(decoding: $0, as: UTF8.self) }
        for words in [
          ["--vga", "virtio,outputs=2"], ["--net", "user,host=off,queues=2"],
          ["--audio", "virtio"],
        ] {
          #expect(line.contains(words[0]) && line.contains(words[1]), "\(line)")
        }
        #expect(line.contains("--usb"))
        #expect(site.children(of: machine).contains { $0.contains("--no-map-gw") })

        let variables = site.state + "/desktops/\(first)/variables.fd"
        // The end of the flash is spare, for the firmware's housekeeping.
        let mark = Array("alice's ".utf8)
        try FileDescriptor.open(variables, .writable).writeAll(
          try Files.read(variables).dropLast(8) + mark)
        viewer.connection.close()
        let session = try #require(try await site.session(of: "alice")).id
        #expect(try await site.carrel("session", "end", session).isSuccess)
        try await site.settle("study")
        _ = try await site.logIn("alice")
        let second = try #require(try await site.session(of: "alice")).desktop
        let now = try Files.read(site.state + "/desktops/\(second)/variables.fd").suffix(8)
        if kind == "dedicated" {
          #expect(second == first && Array(now) == mark)
        } else {
          #expect(Array(now) != mark)
        }
      }
    }

    @Test("is not made where the host lacks what they want, and says what that is", .needsRoot)
    func missing() async throws {
      let settings = Site.Settings(before: "mount --bind /dev/null /usr/bin/passt")
      try await Site.open(settings) { site in
        let outcome = try await site.carrel(
          "pool", "create", "lounge", "--image", try DemoDesktop.path(), "--memory", "64M",
          "--network", "user")
        #expect(outcome.exit == .exited(6))
        #expect(outcome.complaint.contains("pool 'lounge' was not made"), "\(outcome.complaint)")
        #expect(outcome.complaint.contains("install the package passt"))
        #expect(try await site.ask([PoolAnswer].self, "pool", "list").isEmpty)
        #expect(site.machines.isEmpty)
      }
    }

    @Test("of kernels has no firmware to choose, and is refused before there is anything")
    func kernels() async throws {
      try await Site.open { site in
        let kernel = try DemoDesktop.path()
        let refused = try await site.carrel(
          "pool", "create", "lounge", "--image", kernel, "--firmware", "uefi")
        #expect(refused.exit == .exited(4))
        #expect(refused.complaint.contains("'\(kernel)' is a kernel"), "\(refused.complaint)")
        #expect(refused.complaint.contains("give --firmware bios"))
        #expect(try await site.ask([PoolAnswer].self, "pool", "list").isEmpty)

        try await site.furnish()
        try await site.settle()
        let before = site.machineNumbers
        let change = try await site.carrel("pool", "set", "lounge", "--firmware", "uefi")
        #expect(change.exit == .exited(4))
        #expect(site.machineNumbers == before)
        #expect(try await site.carrel("pool", "set", "lounge", "--video", "virtio").isSuccess)
        try await site.settle()
        #expect(Set(site.machineNumbers.keys).isDisjoint(with: before.keys))
      }
    }
  }
}
