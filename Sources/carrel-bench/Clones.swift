import Foundation
import KVM
import LinuxSystem
import QMP

/// Clones of a desktop of 512 MiB whose guest answers challenges: how soon one does after it
/// was asked for, beside the least that KVM takes for an empty machine; how many at once; whether
/// anything grows while they come and go; and what memory each takes. Beside each, QEMU goes
/// on from a template file of the same guest.
func measureClones(_ settings: Settings) throws -> [Comparison] {
  let place = try CloneDirectory()
  defer { place.remove() }
  let qemu = QEMUPeer(place) {
    try QEMUTemplate(place, "answering", of: place.qemuMachine) { try $0.awaitReady() }
  }
  let template = try TemplateProcess(settings, in: place)
  defer { template.stop() }
  var results = try measureFirstAnswers(settings, template, qemu)
  results += try measureBurst(settings, template, qemu)
  results += try measureTurnover(settings, template, qemu)
  results += try measureCloneMemory(settings, template, qemu)
  template.stop()
  results += try measureCloneFrames(settings, place)
  return results
}

// MARK: One at a time

private func measureFirstAnswers(
  _ settings: Settings, _ template: TemplateProcess, _ qemu: QEMUPeer
) throws -> [Comparison] {
  var (ours, floor) = (Samples(), Samples())
  for turn in 0..<(settings.isQuick ? 60 : 300) {
    floor.add(try CloneFloor().milliseconds)
    let clone = try template.clone("first-\(turn)")
    try clone.prove()
    ours.add((Clock.seconds - clone.asked) * 1000)
    try clone.stop()
    // Copies that are made ready are not part of it, as long as they are in time.
    try template.settle()
  }
  let peer = qemu.measure { template in
    var times = Samples()
    for _ in 0..<(settings.isQuick ? 10 : 50) {
      let clone = try template.clone()
      try clone.prove()
      times.add((Clock.seconds - clone.asked) * 1000)
    }
    return times
  }
  return [
    Comparison(
      "clone, from request to its guest's answer, p50", unit: "ms", ours: ours.median,
      peer: floor.median, bound: 2),
    Comparison(
      "  p99, beside p50 of KVM alone", unit: "ms", ours: ours.quantile(0.99),
      peer: floor.median, bound: 4),
    Comparison(
      "  p50 beside QEMU's", unit: "ms", ours: ours.median, qemu: peer.map(\.median), bound: 1),
    Comparison(
      "  p99 beside QEMU's", unit: "ms", ours: ours.quantile(0.99),
      qemu: peer.map { $0.quantile(0.99) }, bound: 1),
  ]
}

/// The least that a machine takes: /dev/kvm to a processor, with memory before controllers.
final class CloneFloor {
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

private func measureBurst(
  _ settings: Settings, _ template: TemplateProcess, _ qemu: QEMUPeer
) throws -> [Comparison] {
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
  let peers = QEMUTemplate.fitting(settings.isQuick ? 20 : count)
  let peer = qemu.measure { template in
    var rates = Samples()
    for _ in 0..<settings.rounds {
      let start = Clock.seconds
      let clones = try (0..<peers).map { _ in try template.clone() }
      for clone in clones { try clone.prove() }
      rates.add(Double(peers) / (Clock.seconds - start))
      for clone in clones { clone.kill() }
    }
    return rates.median
  }
  return [
    Comparison(
      "clones, \(count) at once, until all answered", unit: "/s", ours: rates.median, bound: 250,
      higherIsBetter: true),
    Comparison(
      "  beside QEMU, \(peers) of it at once", unit: "/s", ours: rates.median, qemu: peer, bound: 1,
      higherIsBetter: true),
  ]
}

// MARK: Coming and going

private func measureTurnover(
  _ settings: Settings, _ template: TemplateProcess, _ qemu: QEMUPeer
) throws -> [Comparison] {
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
  let peer = qemu.measure { try turnOver($0, seconds: settings.isQuick ? 2 : 15) }
  return [
    Comparison(
      "clones that come, answer and go", unit: "/s", ours: Double(count) / took,
      bound: rate * 0.99, higherIsBetter: true),
    Comparison(
      "  beside QEMU", unit: "/s", ours: Double(count) / took, qemu: peer, bound: 1,
      higherIsBetter: true,
      note: "ours when \(Int(rate)) were asked for, the peer's as fast as it can"),
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

/// QEMUs a second, each of which is asked for when the one before has answered, and is ended
/// then.
private func turnOver(_ template: QEMUTemplate, seconds: Double) throws -> Double {
  var ended: [QEMUClone] = []
  let start = Clock.seconds
  while Clock.seconds < start + seconds {
    let clone = try template.clone()
    try clone.prove()
    clone.kill()
    ended.append(clone)
  }
  return Double(ended.count) / (Clock.seconds - start)
}
