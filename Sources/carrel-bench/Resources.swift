import Foundation

/// CPU of an idle desktop with a viewer connected, and the bytes it is sent. Of a
/// site that is VMM, display and what carreld uses more than without a viewer.
func measureIdle(_ settings: Settings) throws -> [Comparison] {
  var share: [Server: Samples] = [:]
  var bytes: [Server: Samples] = [:]
  let seconds = settings.secondsPerRound * 2
  func measure(_ server: Server, _ viewer: VNCPeer, _ processes: [Int32]) throws -> Double {
    let received = viewer.bytesReceived
    let used = try cpuShare(of: processes, seconds: seconds) { try idle(viewer, seconds: $0) }
    bytes[server, default: Samples()].add(Double(viewer.bytesReceived - received))
    return used
  }
  for _ in 0..<settings.rounds {
    for server in [Server.carrel, .qemu] {
      try server.withScene("idle", settings, encoding: .zrle) { subject, viewer in
        try idle(viewer, seconds: 3)
        let processes = Subject.family(of: subject.process.processIdentifier)
        share[server, default: Samples()].add(try measure(server, viewer, processes))
      }
    }
    let site = try Site(settings, scene: "idle")
    defer { site.stop() }
    let daemon = [site.daemon.process.processIdentifier]
    let alone = try cpuShare(of: daemon, seconds: seconds) { Thread.wait(seconds: $0) }
    let viewer = try site.connect(.zrle)
    try Server.awaitScene("idle", viewer)
    try idle(viewer, seconds: 3)
    let used = try measure(.site, viewer, Subject.family(of: daemon[0]))
    share[.site, default: Samples()].add(max(0, used - alone))
  }
  return compare("idle desktop with a viewer, CPU", unit: "%", bound: 0.5) {
    share[$0]?.median ?? 0
  }
    + [Server.carrel, .site].map {
      Comparison(
        "bytes sent while nothing changes, \($0.title)", unit: "B",
        ours: bytes[$0]?.quantile(1) ?? 0, bound: 0)
    } + [
      Comparison(
        "bytes QEMU sends meanwhile", unit: "B", ours: bytes[.qemu]?.quantile(1) ?? 0)
    ]
}

/// How much of one CPU `processes` use while `body` passes the time, in percent.
private func cpuShare(
  of processes: [Int32], seconds: Double, _ body: (Double) throws -> Void
) throws -> Double {
  let before = processes.map(Subject.cpuSeconds).reduce(0, +)
  let start = Clock.seconds
  try body(seconds)
  let used = processes.map(Subject.cpuSeconds).reduce(0, +) - before
  return used / (Clock.seconds - start) * 100
}

extension Thread {
  fileprivate static func wait(seconds: Double) {
    var nothing = pollfd()
    poll(&nothing, 0, Int32(seconds * 1000))
  }
}

/// Process start → first byte written by the code at the reset vector (the same
/// ROM under both), and → the demo desktop's first byte.
func measureStart(_ settings: Settings) throws -> [Comparison] {
  let rom = FileManager.default.temporaryDirectory.appendingPathComponent(
    "carrel-bench-\(getpid()).rom")
  try resetVectorROM().write(to: rom)
  defer { try? FileManager.default.removeItem(at: rom) }
  var first: [Server: Samples] = [.carrel: Samples(), .qemu: Samples()]
  for _ in 0..<settings.rounds * 5 {
    for server in [Server.carrel, .qemu] {
      let start = Clock.seconds
      let subject = try Subject(
        name: server.rawValue, server.command(settings, firmware: rom.path))
      defer { subject.stop() }
      first[server]?.add((try subject.awaitOutput(containing: "!", seconds: 10) - start) * 1000)
    }
  }
  var firstByte: [Server: Samples] = [:]
  var ready: [Server: Samples] = [:]
  for _ in 0..<settings.rounds {
    for server in [Server.carrel, .qemu] {
      let command = server.command(settings, scene: "idle", port: try freePort())
      let start = Clock.seconds
      let subject = try Subject(name: server.rawValue, command)
      defer { subject.stop() }
      let first = try subject.awaitOutput(containing: "\n", seconds: 60)
      firstByte[server, default: Samples()].add((first - start) * 1000)
      let desktop = try subject.awaitOutput(containing: settings.readyLine, seconds: 60)
      ready[server, default: Samples()].add((desktop - start) * 1000)
    }
  }
  let ours = first[.carrel]?.median ?? 0
  func row(_ name: String, _ samples: [Server: Samples]) -> Comparison {
    Comparison(
      name, unit: "ms", ours: samples[.carrel]?.median ?? 0, peer: samples[.qemu]?.median ?? 0)
  }
  return [
    Comparison("process start to reset vector's byte", unit: "ms", ours: ours, bound: 30),
    Comparison(
      "the same, against QEMU", unit: "ms", ours: ours, peer: first[.qemu]?.median ?? 0,
      bound: 1.0 / 3),
    row("process start to the ELF's first byte", firstByte),
    row("process start to the desktop's ready line", ready),
  ]
}

/// 64 KiB of real-mode code whose reset vector writes "!" to COM1 and halts.
private func resetVectorROM() -> Data {
  var rom = [UInt8](repeating: 0xF4, count: 65536)
  // mov dx, 0x3f8; mov al, '!'; out dx, al; cli; hlt; jmp to the hlt
  let code: [UInt8] = [0xBA, 0xF8, 0x03, 0xB0, 0x21, 0xEE, 0xFA, 0xF4, 0xEB, 0xFD]
  rom.replaceSubrange(0xFFF0..<0xFFF0 + code.count, with: code)
  return Data(rom)
}

/// Memory of our processes, less what every display server needs: guest RAM and
/// surfaces (memfds, told apart by their mapping's name) and, for the display
/// process, one comparison frame.
func measureMemory(_ settings: Settings) throws -> [Comparison] {
  let site = try Site(settings, scene: "idle")
  defer { site.stop() }
  let viewer = try site.connect(.zrle)
  try Server.awaitScene("idle", viewer)
  try idle(viewer, seconds: 2)
  guard let vmm = site.processes(named: "carrel-vmm").first,
    let display = site.processes(named: "carrel-display").first
  else { throw BenchError("the site runs no VMM or no display") }
  let frame = 1024 * 768 * 4
  let memory = Subject.proportionalSetSize(of: vmm).own
  let displayMemory = Subject.proportionalSetSize(of: display).own - frame
  let (alone, peer) = (try idleMemory(.carrel, settings), try idleMemory(.qemu, settings))
  return [
    Comparison(
      "one process with VNC, beyond guest RAM and VRAM, PSS", unit: "MiB", ours: alone,
      peer: peer, bound: 0.5),
    Comparison(
      "carrel-vmm beyond guest RAM and VRAM, PSS", unit: "MiB",
      ours: Double(memory) / 1_048_576, bound: 24),
    Comparison(
      "carrel-display beyond surface and a frame, PSS", unit: "MiB",
      ours: Double(displayMemory) / 1_048_576, bound: 16),
  ]
}

/// MiB of a server with its guest and a viewer standing still, beyond RAM and VRAM.
private func idleMemory(_ server: Server, _ settings: Settings) throws -> Double {
  try server.withScene("idle", settings, encoding: .zrle) { subject, viewer in
    try idle(viewer, seconds: 3)
    let memory = Subject.proportionalSetSize(of: subject.process.processIdentifier)
    return Double(memory.own) / 1_048_576
  }
}
