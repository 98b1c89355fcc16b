import Foundation
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
  @Suite("Backups of a pool", .needs("restic"))
  struct BackupTests {
    private static let users = ["alice", "bob", "carol"]

    /// A desktop for each user, and a spare.
    private func furnish(_ site: Site) async throws {
      let image = try site.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "disk.raw")
      try await site.repeatable([
        "pool", "create", "study", "--kind", "dedicated", "--image", image, "--memory", "16M",
        "--size", "4", "--spares", "4",
      ])
      for user in Self.users {
        try await site.repeatable(["user", "add", user, "--no-password"])
        try await site.repeatable(["entitle", user, "study"])
      }
      try await eventually("the pool is there") { try await site.pool("study").desktops.clean == 4 }
      for (number, user) in Self.users.enumerated() {
        let outcome = try await site.carrel("desktop", "assign", "study-\(number + 1)", user)
        try #require(outcome.isSuccess, "\(outcome.complaint)")
      }
    }

    @Test("has those of all desktops but the one that fails, and tells of that")
    func failure() async throws {
      try await Site.open { site in
        try await furnish(site)
        let to = ["--to", site.directory.path("backups")]
        let disk = site.state + "/desktops/study-2/disk.raw"
        try FileManager.default.moveItem(atPath: disk, toPath: disk + ".away")

        let outcome = try await site.carrel(["backup", "run", "study"] + to)
        #expect(outcome.exit == .exited(6))
        #expect(outcome.complaint.contains("1 of 3 desktops have no new backup"))
        #expect(
          outcome.complaint.contains("the disk of desktop 'study-2' is gone"),
          "\(outcome.complaint)")
        let rows = outcome.output.split(separator: "\n").filter { $0.hasPrefix("study-") }
        #expect(rows.map { $0.contains("ready") } == [true, false, true], "\(outcome.output)")
        #expect(try await owners(site) == ["alice", "carol"])
        #expect(site.machines.count == 4, "all run on")

        // As a program sees it.
        let again = try await site.carrel(["backup", "run", "study", "--json"] + to)
        #expect(again.exit == .exited(6))
        let job = try JSONDecoder().decode(
          BackupJobAnswer.self, from: Data(again.output.utf8))
        #expect(job.state == "failed" && job.problem?.contains("1 of 3") == true)
        #expect(job.results.map { $0.problem == nil } == [true, false, true])
        #expect(job.results.map { $0.backup == nil } == [false, true, false])

        try FileManager.default.moveItem(atPath: disk + ".away", toPath: disk)
        let mended = try await site.carrel(["backup", "run", "study"] + to)
        #expect(mended.isSuccess, "\(mended.complaint)")
        #expect(
          try await owners(site) == ["alice", "carol", "alice", "carol"] + Self.users)
      }
    }

    @Test("has only those of desktops that are somebody's, if not said otherwise")
    func all() async throws {
      try await Site.open { site in
        try await furnish(site)
        let to = ["--to", site.directory.path("backups")]
        #expect(try await site.carrel(["backup", "run", "study"] + to).isSuccess)
        #expect(try await owners(site) == Self.users)
        #expect(try await site.carrel(["backup", "run", "study", "--all"] + to).isSuccess)
        #expect(try await owners(site) == Self.users + Self.users + [nil])
      }
    }

    /// Of the backups that there are, oldest first.
    private func owners(_ site: Site) async throws -> [String?] {
      try await site.ask(
        [BackupAnswer].self, "backup", "list", "--from", site.directory.path("backups")
      ).map(\.owner)
    }
  }
}
