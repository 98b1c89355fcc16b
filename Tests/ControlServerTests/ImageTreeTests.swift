import Brokering
import ControlClient
import TestSupport
import Testing

@Suite("The tree of an image and what is based on it")
struct ImageTreeTests {
  private static let base = "office/image.raw"

  private func disk(
    _ desktop: String, _ number: Int, over base: String?, isCurrent: Bool = false
  ) -> ImageDisk {
    ImageDisk(
      desktop: DesktopID(rawValue: desktop), name: "disk-\(number).qcow2", base: base,
      allocated: UInt64(number) << 20, isCurrent: isCurrent)
  }

  /// What `carrel image show` prints behind the fields.
  private func tree(of disks: [ImageDisk], _ site: InProcess) async throws -> [Substring] {
    site.library.add("office", with: disks)
    var lines: [Substring] = []
    try await site.serving { client in
      try await site.broker.perform(
        .createPool(
          Pool(
            name: PoolName(rawValue: "office"), kind: .manual,
            image: Image(kind: .disk, path: "/images/office"), size: 1, spares: 1,
            policies: PoolPolicies(), created: Timestamp(milliseconds: 0))))
      let alice = UserName(rawValue: "alice")
      try await site.broker.perform(.addUser(alice, verifier: nil))
      try await site.broker.perform(.entitle(alice, PoolName(rawValue: "office")))
      let first = DesktopID(rawValue: "office-1")
      while await site.broker.snapshot.desktops[first]?.phase != .clean { await Task.yield() }
      try await site.broker.perform(.assignDesktop(first, alice))
      let shown = try await client.carrel(["image", "show", "office"], in: try Home())
      try #require(shown.code == 0, "\(shown.errors)")
      lines = shown.output.split(separator: "\n", omittingEmptySubsequences: false)
    }
    let start = try #require(lines.firstIndex(of: ""), "\(lines)")
    return lines[(start + 1)...].filter { !$0.isEmpty }
  }

  @Test("has templates' and desktops' disks under what they are based on, and whose they are")
  func branches() async throws {
    let disks = [
      disk("office@3", 1, over: Self.base),
      disk("office-1", 1, over: "office@3/disk-1.qcow2"),
      disk("office-1", 2, over: "office-1/disk-1.qcow2", isCurrent: true),
      disk("office-1", 3, over: "office-1/disk-1.qcow2"),
      disk("office-2", 1, over: "office@3/disk-1.qcow2", isCurrent: true),
      disk("office-7", 1, over: Self.base, isCurrent: true),
      // What it is based on is not of this image's.
      disk("office-8", 1, over: nil),
    ]
    #expect(
      try await tree(of: disks, InProcess()) == [
        "office",
        "├─ office@3  disk-1.qcow2  1 MiB",
        "│  ├─ office-1 (alice)  disk-1.qcow2  1 MiB",
        "│  │  ├─ office-1 (alice)  disk-2.qcow2  2 MiB  in use",
        "│  │  └─ office-1 (alice)  disk-3.qcow2  3 MiB",
        "│  └─ office-2  disk-1.qcow2  1 MiB  in use",
        "├─ office-7  disk-1.qcow2  1 MiB  in use",
        "└─ office-8  disk-1.qcow2  1 MiB",
      ])
  }

  @Test("is left out when nothing is based on it")
  func none() async throws {
    let site = try InProcess()
    try await site.serving { client in
      let shown = try await client.carrel(["image", "show", "debian"], in: try Home())
      #expect(shown.code == 0 && !shown.output.contains("─"), "\(shown.output)")
      #expect(shown.output.contains("trixie"))
    }
  }

  @Test("ends where disks say that they are based on each other")
  func circle() async throws {
    let disks = [
      disk("office-2", 1, over: "office-3/disk-1.qcow2"),
      disk("office-3", 1, over: "office-2/disk-1.qcow2"),
    ]
    #expect(try await tree(of: disks, InProcess()).first == "office")
  }
}
