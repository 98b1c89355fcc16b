import Foundation
import KVM
import LinuxSystem
import QMP

/// Clones of a desktop of 512 MiB whose guest answers challenges: how soon one does after it
/// was asked for, beside the least that KVM takes for an empty machine and beside QEMU, which
/// goes on from a file; how many at once; whether anything grows while they come and go; and
/// what memory each takes.
func measureClones(_ settings: Settings) throws -> [Comparison] {
  let place = try CloneDirectory()
  let template = try TemplateProcess(settings, in: place)
  defer { template.stop() }
  var results = try measureFirstAnswers(settings, template, place)
  results += try measureBurst(settings, template)
  results += try measureTurnover(settings, template)
  results += try measureCloneMemory(settings, template)
  template.stop()
  results += try measureCloneFrames(settings, place)
  return results
}

// MARK: One at a time

private func measureFirstAnswers(
  _ settings: Settings, _ template: TemplateProcess, _ place: CloneDirectory
) throws -> [Comparison] {
  var (ours, floor, peer) = (Samples(), Samples(), Samples())
  for turn in 0..<(settings.isQuick ? 60 : 300) {
    floor.add(try CloneFloor().milliseconds)
    let clone = try template.clone("first-\(turn)")
    try clone.prove()
    ours.add((Clock.seconds - clone.asked) * 1000)
    try clone.stop()
    // Copies that are made ready are not part of it, as long as they are in time.
    try template.settle()
  }
  for _ in 0..<max(5, settings.rounds * 3) { peer.add(try place.timeQEMU()) }
  return [
    Comparison(
      "clone, from request to its guest's answer, p50", unit: "ms", ours: ours.median,
      peer: floor.median, bound: 2),
    Comparison(
      "  p99, beside p50 of KVM alone", unit: "ms", ours: ours.quantile(0.99),
      peer: floor.median, bound: 4),
    Comparison(
      "  beside QEMU from a file", unit: "ms", ours: ours.median, peer: peer.median, bound: 1),
  ]
}

/// The least that a machine takes: /dev/kvm to a processor, with memory before controllers.
private final class CloneFloor {
  private let memory: MemoryMapping
  private let video: MemoryMapping
  private let machine: KVMMachine
  private let processor: VirtualCPU
  let milliseconds: Double

  init() throws {
    memory = try MemoryMapping(anonymous: 512 << 20)
    video = try MemoryMapping(anonymous: 16 << 20)
    let start = Clock.seconds
    machine = try KVMSystem(required: []).makeMachine()
    // SAFETY: the ranges lie in the mapping, which outlives the machine.
    let low = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<0xA_0000])
    // SAFETY: as above.
    let rest = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[0xC_0000...])
    try machine.setMemory(slot: 0, at: 0, low)
    try machine.setMemory(slot: 1, at: 0xC_0000, rest)
    try machine.setMemory(slot: 2, at: 0xFD00_0000, video.bytes, .logDirtyPages)
    try machine.makeInterruptControllers()
    processor = try machine.makeVCPU(identifier: 0)
    milliseconds = (Clock.seconds - start) * 1000
  }

  /// KiB of the host that each of many takes, none of which has run.
  static func memory(_ count: Int) throws -> Double {
    var floors: [CloneFloor] = []
    var held: [Double] = []
    for _ in 0..<count {
      floors.append(try CloneFloor())
      held.append(HostUse.accounted)
    }
    return withExtendedLifetime(floors) { HostUse.slope(held) }
  }
}

// MARK: Many at once

private func measureBurst(_ settings: Settings, _ template: TemplateProcess) throws
  -> [Comparison]
{
  let count = 200
  var rates = Samples()
  for round in 0..<settings.rounds {
    let start = Clock.seconds
    // Each connection carries one request at a time.
    let clones = try (0..<count).map {
      try template.clone("burst-\(round)-\($0)", connection: $0 % 8)
    }
    for clone in clones { try clone.prove() }
    rates.add(Double(count) / (Clock.seconds - start))
    for clone in clones { try clone.stop() }
    try template.settle()
  }
  return [
    Comparison(
      "clones, \(count) at once, until all answered", unit: "/s", ours: rates.median, bound: 250,
      higherIsBetter: true)
  ]
}

// MARK: Coming and going

private func measureTurnover(_ settings: Settings, _ template: TemplateProcess) throws
  -> [Comparison]
{
  let (rate, seconds) = (80.0, settings.isQuick ? 5.0 : 60.0)
  var latencies = Samples()
  // What is there from the first time on is no growth.
  for turn in 0..<40 {
    let clone = try template.clone("warm-\(turn)")
    try clone.prove()
    try clone.stop()
  }
  try template.settle()
  let before = try HostUse(of: template)
  let start = Clock.seconds
  let count = Int(rate * seconds)
  for turn in 0..<count {
    let due = start + Double(turn) / rate
    let now = Clock.seconds
    if now < due { poll(nil, 0, Int32((due - now) * 1000)) }
    let clone = try template.clone("turn-\(turn)")
    try clone.prove()
    latencies.add((Clock.seconds - clone.asked) * 1000)
    try clone.stop()
  }
  let took = Clock.seconds - start
  try template.settle()
  let after = try HostUse(of: template)
  return [
    Comparison(
      "clones that come, answer and go", unit: "/s", ours: Double(count) / took,
      bound: rate * 0.99, higherIsBetter: true),
    Comparison("  from request to answer, p50", unit: "ms", ours: latencies.median),
    Comparison("  p99", unit: "ms", ours: latencies.quantile(0.99)),
    Comparison(
      "  growth of the template's memory", unit: "KiB", ours: after.memory - before.memory,
      bound: 64),
    Comparison(
      "  of its descriptors and threads", unit: "",
      ours: after.handles - before.handles, bound: 0),
    Comparison(
      "  of the host's used memory", unit: "MiB", ours: after.used - before.used,
      bound: 32),
    Comparison("  of the host's processes", unit: "", ours: after.tasks - before.tasks),
  ]
}

/// What the template's process and the host hold at an instant.
private struct HostUse {
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

// MARK: Memory

private func measureCloneMemory(_ settings: Settings, _ template: TemplateProcess) throws
  -> [Comparison]
{
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
  let slope = HostUse.slope(held)
  // What each holds, of RAM and of everything else.
  let sample = try clones.suffix(10).map { CloneMemory(of: try $0.awaitAnswer().process) }
  func median(_ value: (CloneMemory) -> Double) -> Double {
    var samples = Samples()
    for memory in sample { samples.add(value(memory)) }
    return samples.median
  }
  let (dirtied, own) = (median(\.dirtied), median(\.own))
  guard slope >= dirtied else {
    throw BenchError(
      "a clone that changed \(Int(dirtied)) KiB is said to take \(Int(slope)) KiB of the host")
  }
  for clone in clones { try clone.stop() }
  try template.settle()
  let kernel = try CloneFloor.memory(count)
  return [
    Comparison("clone that is idle, host memory in all", unit: "KiB", ours: slope),
    Comparison(
      "  the same by MemAvailable, which may come back late", unit: "KiB",
      ours: HostUse.slope(available)),
    Comparison("  of it, what its process takes", unit: "KiB", ours: own),
    Comparison("  of it, what KVM takes for an empty machine", unit: "KiB", ours: kernel),
    Comparison(
      "  the rest, beside 1.10 of what it dirtied, and 512 KiB", unit: "KiB",
      ours: slope - own - kernel, peer: dirtied * 1.1 + 512, bound: 1),
  ]
}

/// KiB of a clone, from /proc/PID/smaps: pages of guest memory that it changed, and the
/// proportional size of the rest.
private struct CloneMemory {
  private(set) var dirtied = 0.0
  private(set) var own = 0.0

  init(of process: Int32) {
    let text = kernelText("/proc/\(process)/smaps")
    var isGuest = false
    for line in text.split(separator: "\n") {
      let value = Double(line.split(separator: " ").dropFirst().first ?? "") ?? 0
      if line.first?.isHexDigit == true, line.contains("-"), !line.hasPrefix("Anonymous:") {
        isGuest = line.contains("carrel-template-ram") || line.contains("carrel-vram")
      } else if line.hasPrefix("Size:"), value >= 102_400 {
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
