import Brokering
import LinuxSystem
import Logging
import Supervisor
import TestSupport
import Testing

@Suite("What the kernel says of memory")
struct MemoryFilesTests {
  private typealias Group = MemoryFiles.Group

  private static let v1 = """
    24 1 254:0 / / rw,relatime - ext4 /dev/vda1 rw
    34 31 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
    35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
    36 31 0:33 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
    """
  private static let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
  private static let part =
    "30 23 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"

  @Test("of the host")
  func host() throws {
    let text = "MemTotal:       24684036 kB\nMemFree:  1 kB\nMemAvailable:   22621976 kB\n"
    let host = try #require(MemoryFiles.host(text))
    #expect(host == (24_684_036 * 1024, 22_621_976 * 1024))
  }

  @Test(
    "of a host is nothing where it makes no sense",
    arguments: [
      "", "MemTotal: 100 kB\n", "MemTotal: x kB\nMemAvailable: 5 kB\n",
      "MemTotal: 0 kB\nMemAvailable: 5 kB\n",
      "MemTotal: 18446744073709551615 kB\nMemAvailable: 5 kB\n",
      "MemTotal:\nMemAvailable:\n",
    ])
  func nonsense(text: String) {
    #expect(MemoryFiles.host(text) == nil)
  }

  @Test(
    "of control groups, from the own one up",
    arguments: [
      (
        v1, "5:cpu:/a\n4:memory:/a/b\n0::/c\n",
        ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"], true
      ),
      (v1, "4:memory:/\n0::/\n", ["/sys/fs/cgroup/memory"], true),
      (
        v2, "0::/system.slice/carreld.service\n",
        [
          "/sys/fs/cgroup/system.slice/carreld.service", "/sys/fs/cgroup/system.slice",
          "/sys/fs/cgroup",
        ], false
      ),
      (part, "0::/docker/abc/x\n", ["/sys/fs/cgroup/x", "/sys/fs/cgroup"], false),
      (part, "0::/../../elsewhere\n", ["/sys/fs/cgroup"], false),
      (v2, "", [], false),
      ("", "0::/x\n", [], false),
      ("30 23\n- cgroup2\n", "0::/x\n", [], false),
    ])
  func groups(mounts: String, membership: String, paths: [String], isFirst: Bool) {
    let groups = MemoryFiles.groups(mounts: mounts, membership: membership)
    #expect(groups.map(\.path) == paths)
    #expect(groups.allSatisfy { $0.version == (isFirst ? .v1 : .v2) })
  }

  @Test("of a limit: files that are kept are left, too")
  func limit() throws {
    let second = "anon 5\nfile 900\ninactive_file 300\nactive_file 200\ntotal_inactive_file 7\n"
    #expect(
      try #require(MemoryFiles.limit("1000\n", usage: "800\n", statistics: second, .v2)) == (
        1000, 600
      ))
    let first = "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 200\n"
    #expect(
      try #require(MemoryFiles.limit("1000\n", usage: "800\n", statistics: first, .v1)) == (
        1000, 600
      ))
    #expect(
      try #require(MemoryFiles.limit("1000", usage: "1800", statistics: "", .v1)) == (1000, 0))
    #expect(
      try #require(MemoryFiles.limit("1000", usage: "10", statistics: first, .v1)) == (1000, 1000))
    #expect(MemoryFiles.limit("max\n", usage: "800\n", statistics: "", .v2) == nil)
    #expect(MemoryFiles.limit("9223372036854771712\n", usage: "8", statistics: "", .v1) == nil)
    #expect(MemoryFiles.limit("", usage: "", statistics: "", .v2) == nil)
  }

  @Test("is read again and again, on this host, too")
  func here() async throws {
    let monitor = try MemoryMonitor(logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    var readings: [MemoryReading] = []
    for await reading in monitor.readings {
      readings.append(reading)
      if readings.count == 2 { break }
    }
    #expect(readings.count == 2)
    for reading in readings {
      #expect(reading.totalMiB > 0 && (0...reading.totalMiB).contains(reading.availableMiB))
    }
  }
}

@Suite("Whom the kernel would end first", .needsKVM, .serialized)
struct OutOfMemoryTests {
  private let office = DesktopID(rawValue: "office-1")

  private func score(_ process: ProcessHandle) throws -> Int {
    let text = String(
      decoding: try Files.read("/proc/\(process.identifier)/oom_score_adj"), as: UTF8.self)
    return try #require(Int(text.prefix { $0 != "\n" }))
  }

  @Test("spares, then what nobody looks at, then the rest; also of desktops that were adopted")
  func order() async throws {
    let running = try RunningSupervisor()
    let supervisor = running.supervisor
    await supervisor.prioritize(office, as: .spare)
    try await supervisor.start(try running.request(user: nil))
    let process = try running.process()
    let spare = try score(process)
    await supervisor.prioritize(office, as: .idle)
    let idle = try score(process)
    for _ in 0..<2 {
      await supervisor.prioritize(office, as: .inUse)
      let inUse = try score(process)
      #expect(spare > idle && idle > inUse && inUse > 0)
    }
    let next = try RunningSupervisor(after: running)
    #expect(try await next.supervisor.survey().map(\.state) == [.running])
    await next.supervisor.prioritize(office, as: .spare)
    #expect(try score(process) == spare)
    try await next.supervisor.discard(office)
    await next.supervisor.prioritize(office, as: .idle)
  }

  @Test("one that is started for somebody is no spare from the beginning")
  func forSomebody() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request(user: nil))
    let spare = try score(running.process())
    try await running.supervisor.discard(office)
    try await running.supervisor.start(try running.request(generation: 2, user: "alice"))
    #expect(try score(running.process()) < spare)
    try await running.supervisor.discard(office)
  }
}
