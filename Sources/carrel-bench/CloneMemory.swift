import Foundation

/// What memory a clone takes that changed a little and stands still.
func measureCloneMemory(
  _ settings: Settings, _ template: TemplateProcess, _ qemu: QEMUPeer
) throws -> [Comparison] {
  let count = settings.isQuick ? 50 : 200
  var clones: [BenchClone] = []
  var (held, available): ([Double], [Double]) = ([], [])
  for number in 0..<count {
    let clone = try template.clone("memory-\(number)")
    try clone.prove()
    try clone.dirty()
    clones.append(clone)
    try template.settle(besides: clones.count)
    held.append(HostUse.accounted)
    available.append(-HostUse.available)
  }
  let ours = try IdleMemory(
    held, try clones.suffix(10).map { CloneMemory(of: try $0.awaitAnswer().process) })
  for clone in clones { try clone.stop() }
  try template.settle()
  let peers = QEMUTemplate.fitting(count)
  let peer = qemu.measure { try idleMemory($0, count: peers) }
  let kernel = try CloneFloor.memory(count)
  func beside(
    _ name: String, bound: Double? = 1, _ value: (IdleMemory) -> Double
  ) -> Comparison {
    Comparison(name, unit: "KiB", ours: value(ours), qemu: peer.map(value), bound: bound)
  }
  return [
    Comparison("clone that is idle, host memory in all", unit: "KiB", ours: ours.all),
    beside("  beside QEMU, \(peers) of it") { $0.all },
    Comparison(
      "  the same by MemAvailable, which may come back late", unit: "KiB",
      ours: HostUse.slope(available)),
    Comparison("  of it, what its process takes", unit: "KiB", ours: ours.own),
    beside("  beside QEMU's") { $0.own },
    Comparison("  of it, what KVM takes for an empty machine", unit: "KiB", ours: kernel),
    Comparison(
      "  the rest, beside 1.10 of what it dirtied, and 512 KiB", unit: "KiB",
      ours: ours.all - ours.own - kernel, peer: ours.dirtied * 1.1 + 512, bound: 1),
    beside("  beside the rest of QEMU's", bound: nil) { $0.all - $0.own - kernel },
  ]
}

private func idleMemory(_ template: QEMUTemplate, count: Int) throws -> IdleMemory {
  var clones: [QEMUClone] = []
  var held: [Double] = []
  for _ in 0..<count {
    let clone = try template.clone()
    try clone.prove()
    try clone.dirty()
    clones.append(clone)
    poll(nil, 0, 20)
    held.append(HostUse.accounted)
  }
  return try IdleMemory(held, clones.suffix(10).map { template.memory(of: $0) })
}

/// KiB of each of many.
private struct IdleMemory {
  let all: Double
  /// Of RAM and VRAM, and of everything else.
  let dirtied: Double
  let own: Double

  /// - Parameters:
  ///   - held: what the host had in use after each of them.
  ///   - sample: of them.
  init(_ held: [Double], _ sample: [CloneMemory]) throws {
    func median(_ value: (CloneMemory) -> Double) -> Double {
      var samples = Samples()
      for memory in sample { samples.add(value(memory)) }
      return samples.median
    }
    (all, dirtied, own) = (HostUse.slope(held), median(\.dirtied), median(\.own))
    guard all >= dirtied else {
      throw BenchError(
        "a clone that changed \(Int(dirtied)) KiB is said to take \(Int(all)) KiB of the host")
    }
  }
}

/// KiB of a clone, from /proc/PID/smaps: pages of guest memory that it changed, and the
/// proportional size of the rest.
struct CloneMemory {
  private(set) var dirtied = 0.0
  private(set) var own = 0.0

  /// - Parameter guest: names of what the guest's memory is, and KiB of what of it has none.
  init(
    of process: Int32, names: [String] = ["carrel-template-ram", "carrel-vram"],
    nameless: Double? = nil
  ) {
    let text = kernelText("/proc/\(process)/smaps")
    var isGuest = false
    for line in text.split(separator: "\n") {
      let value = Double(line.split(separator: " ").dropFirst().first ?? "") ?? 0
      if line.first?.isHexDigit == true, line.contains("-"), !line.hasPrefix("Anonymous:") {
        isGuest = names.contains { line.contains($0) }
      } else if line.hasPrefix("Size:"), value >= 102_400 || value == nameless {
        // What of RAM is none of the template's.
        isGuest = true
      } else if line.hasPrefix("Anonymous:"), isGuest {
        dirtied += value
      } else if line.hasPrefix("Pss:"), !isGuest {
        own += value
      }
    }
  }
}

/// What the template's process and the host hold at an instant.
struct HostUse {
  /// KiB that are the process's own.
  let memory: Double
  let handles: Double
  /// MiB that the host's kernel accounts for, but for caches.
  let used: Double
  let tasks: Double

  init(of template: TemplateProcess) throws {
    let process = "/proc/\(template.process.handle.identifier)"
    // A proportional size would tell how many copies share the process's pages just now.
    let anonymous = kernelText("\(process)/status").split(separator: "\n").first {
      $0.hasPrefix("RssAnon:")
    }
    memory = anonymous?.split(separator: " ").dropFirst().first.flatMap { Double($0) } ?? 0
    handles = Double(
      try FileManager.default.contentsOfDirectory(atPath: "\(process)/fd").count
        + FileManager.default.contentsOfDirectory(atPath: "\(process)/task").count)
    used = Self.accounted / 1024
    tasks = Double(
      try FileManager.default.contentsOfDirectory(atPath: "/proc").count { Int($0) != nil })
  }

  /// How much each of what was made one after another took: the median of many answers, as
  /// what else happens on the host comes and goes.
  static func slope(_ held: [Double]) -> Double {
    let half = held.count / 2
    var slopes = Samples()
    for first in 0..<half { slopes.add((held[first + half] - held[first]) / Double(half)) }
    return slopes.median
  }

  /// KiB. What a host that gives free memory away takes back late comes and goes in it.
  static var available: Double { kibibytes("MemAvailable") }

  /// KiB that the kernel says what they are used for, but for caches.
  static var accounted: Double {
    [
      "AnonPages", "Shmem", "SUnreclaim", "KernelStack", "PageTables", "SecPageTables",
      "VmallocUsed", "Percpu",
    ].map(kibibytes).reduce(0, +)
  }

  private static func kibibytes(_ name: String) -> Double {
    let text = kernelText("/proc/meminfo")
    let line = text.split(separator: "\n").first { $0.hasPrefix("\(name):") }
    return line?.split(separator: " ").dropFirst().first.flatMap { Double($0) } ?? 0
  }
}
