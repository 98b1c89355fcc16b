import Brokering
import LinuxSystem

/// What /proc and control groups say of memory.
package struct MemoryFiles: Sendable {
  /// A control group with a limit of its own, or one above it.
  package struct Group: Hashable, Sendable {
    package enum Version: Hashable, Sendable { case v1, v2 }

    package let version: Version
    /// Its directory.
    package let path: String
  }

  private let groups: [Group]

  /// Those that limit this process and, as it starts them, its desktops.
  package init() {
    groups = Self.groups(
      mounts: Self.text("/proc/self/mountinfo") ?? "",
      membership: Self.text("/proc/self/cgroup") ?? "")
  }

  /// `nil` where the kernel does not say what is available.
  package func read(isStalling: Bool = false) -> MemoryReading? {
    guard let text = Self.text("/proc/meminfo"), let host = Self.host(text) else { return nil }
    var (total, available) = host
    for group in groups {
      guard let (limit, left) = Self.limit(of: group) else { continue }
      total = min(total, limit)
      available = min(available, left)
    }
    return MemoryReading(
      totalMiB: Int(total >> 20), availableMiB: Int(available >> 20), isStalling: isStalling)
  }

  /// Where the kernel tells how long programs wait for memory, nearest first.
  package var pressureFiles: [String] {
    groups.filter { $0.version == .v2 }.map { $0.path + "/memory.pressure" }
      + ["/proc/pressure/memory"]
  }

  // MARK: What stands in them

  /// Bytes, of /proc/meminfo.
  package static func host(_ text: String) -> (total: UInt64, available: UInt64)? {
    let values = values(in: text, of: ["MemTotal:", "MemAvailable:"])
    guard let total = values["MemTotal:"], let available = values["MemAvailable:"], total > 0
    else { return nil }
    let (bytes, tooMany) = total.multipliedReportingOverflow(by: 1024)
    let (left, tooMuch) = available.multipliedReportingOverflow(by: 1024)
    return tooMany || tooMuch ? nil : (bytes, min(left, bytes))
  }

  /// Lines that begin with a name and a number.
  private static func values(in text: String, of names: Set<String>) -> [String: UInt64] {
    text.split(separator: "\n").reduce(into: [:]) { values, line in
      let words = line.split(separator: " ", omittingEmptySubsequences: true)
      guard words.count >= 2, names.contains(String(words[0])) else { return }
      values[String(words[0])] = UInt64(words[1])
    }
  }

  /// The memory groups of this process, from its own to the outermost that is seen, of the
  /// tree that has the memory controller: proc(5), cgroups(7).
  package static func groups(mounts: String, membership: String) -> [Group] {
    for line in membership.split(separator: "\n") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3, fields[1].split(separator: ",").contains("memory") else {
        continue
      }
      return groups(.v1, mounts: mounts, path: String(fields[2]))
    }
    guard let line = membership.split(separator: "\n").first(where: { $0.hasPrefix("0::") })
    else { return [] }
    return groups(.v2, mounts: mounts, path: String(line.dropFirst(3)))
  }

  private static func groups(
    _ version: Group.Version, mounts: String, path: String
  ) -> [Group] {
    for line in mounts.split(separator: "\n") {
      let words = line.split(separator: " ").map(String.init)
      guard let dash = words.firstIndex(of: "-"), words.count > dash + 3, dash > 4 else {
        continue
      }
      let isIt =
        switch version {
        case .v1:
          words[dash + 1] == "cgroup" && words[dash + 3].split(separator: ",").contains("memory")
        case .v2: words[dash + 1] == "cgroup2"
        }
      guard isIt else { continue }
      return groups(version, root: words[3], at: words[4], path: path)
    }
    return []
  }

  /// What is mounted may be a part of the tree, and the path be as another namespace sees it:
  /// then what is mounted is the nearest that there is.
  private static func groups(
    _ version: Group.Version, root: String, at place: String, path: String
  ) -> [Group] {
    var parts = path.split(separator: "/").map(String.init)
    let above = root.split(separator: "/").map(String.init)
    parts =
      parts.starts(with: above) && !parts.contains("..") ? Array(parts.dropFirst(above.count)) : []
    return (0...parts.count).reversed().map { count in
      Group(version: version, path: ([place] + parts.prefix(count)).joined(separator: "/"))
    }
  }

  /// Bytes that a group may have and what it has left; `nil` for one without a limit.
  private static func limit(of group: Group) -> (limit: UInt64, left: UInt64)? {
    let names =
      switch group.version {
      case .v1: (limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes")
      case .v2: (limit: "memory.max", usage: "memory.current")
      }
    return limit(
      text(group.path + "/" + names.limit) ?? "", usage: text(group.path + "/" + names.usage) ?? "",
      statistics: text(group.path + "/memory.stat") ?? "", group.version)
  }

  /// The same of what stands in its files. What is kept of files is given up when somebody
  /// needs it; of those in use half is counted, as the kernel does for MemAvailable.
  package static func limit(
    _ limit: String, usage: String, statistics: String, _ version: Group.Version
  ) -> (limit: UInt64, left: UInt64)? {
    guard let limit = UInt64(limit.prefix { $0.isNumber }), limit < UInt64(Int64.max) >> 1,
      let usage = UInt64(usage.prefix { $0.isNumber })
    else { return nil }
    let prefix = version == .v1 ? "total_" : ""
    let (inactive, active) = (prefix + "inactive_file", prefix + "active_file")
    let values = values(in: statistics, of: [inactive, active])
    let files = (values[inactive] ?? 0).addingReportingOverflow((values[active] ?? 0) / 2)
    let taken = usage - min(usage, files.overflow ? 0 : files.partialValue)
    return (limit, limit - min(limit, taken))
  }

  private static func text(_ path: String) -> String? {
    (try? Files.read(path, limit: 1 << 20)).map { String(decoding: $0, as: UTF8.self) }
  }
}
