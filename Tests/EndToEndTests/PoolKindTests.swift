import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
  @Suite("A desktop after the session")
  struct PoolKindTests {
    @Test(
      "stays its user's, with its disk, in a dedicated pool; is anybody's and new in a floating one",
      arguments: ["dedicated", "floating"])
    func kind(_ kind: String) async throws {
      try await Site.open { site in
        let image = try site.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "disk.raw")
        for user in ["alice", "bob"] {
          try await site.repeatable(["user", "add", user, "--no-password"])
        }
        try await site.repeatable([
          "pool", "create", "study", "--kind", kind, "--image", image, "--memory", "64M", "--size",
          "3", "--spares", "1", "--stop-grace", "1",
        ])
        for user in ["alice", "bob"] { try await site.repeatable(["entitle", user, "study"]) }
        let viewer = try await site.logIn("alice")
        let first = try #require(try await site.session(of: "alice"))
        let disk = site.state + "/desktops/\(first.desktop)/disk.raw"
        // As the guest would have written.
        try FileDescriptor.open(disk, .writable).writeAll(Array("alice was here".utf8))
        viewer.connection.close()
        #expect(try await site.carrel("session", "end", first.id).isSuccess)
        try await site.settle("study")

        let owner = try await site.desktops.first { $0.id == first.desktop }?.owner
        #expect(owner == (kind == "dedicated" ? "alice" : nil))
        _ = try await site.logIn("bob")
        _ = try await site.logIn("alice")
        let (bobs, second) = (
          try #require(try await site.session(of: "bob")),
          try #require(try await site.session(of: "alice"))
        )
        if kind == "dedicated" {
          #expect(second.desktop == first.desktop)
          #expect(bobs.desktop != first.desktop)
          #expect(try Files.read(disk).starts(with: "alice was here".utf8))
        } else {
          for session in [bobs, second] {
            let now = try Files.read(site.state + "/desktops/\(session.desktop)/disk.raw")
            #expect(!now.starts(with: "alice was here".utf8))
          }
        }
      }
    }
  }
}
