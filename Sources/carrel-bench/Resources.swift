import Foundation

/// CPU of an idle desktop with a viewer connected, and the bytes it is sent.
func measureIdle(_ settings: Settings) throws -> [Comparison] {
  var share: [Server: Samples] = [.carrel: Samples(), .qemu: Samples()]
  var bytes: [Server: Samples] = [.carrel: Samples(), .qemu: Samples()]
  for _ in 0..<settings.rounds {
    for server in Server.allCases {
      try server.withScene("idle", settings, encoding: .zrle) { subject, viewer in
        try idle(viewer, seconds: 3)
        let processes = Subject.family(of: subject.process.processIdentifier)
        let before = processes.map(Subject.cpuSeconds).reduce(0, +)
        let received = viewer.bytesReceived
        let start = Clock.seconds
        try idle(viewer, seconds: settings.secondsPerRound * 2)
        let used = processes.map(Subject.cpuSeconds).reduce(0, +) - before
        share[server]?.add(used / (Clock.seconds - start) * 100)
        bytes[server]?.add(Double(viewer.bytesReceived - received))
      }
    }
  }
  return [
    Comparison(
      "idle desktop with a viewer, CPU", unit: "%", ours: share[.carrel]?.median ?? 0,
      peer: share[.qemu]?.median ?? 0, bound: 0.5),
    Comparison(
      "bytes sent while nothing changes", unit: "B", ours: bytes[.carrel]?.median ?? 0, bound: 0),
    Comparison(
      "bytes QEMU sends meanwhile", unit: "B", ours: bytes[.qemu]?.median ?? 0),
  ]
}

/// Process start → first byte written by the code at the reset vector (the same
/// ROM under both), and → the demo desktop's first byte.
func measureStart(_ settings: Settings) throws -> [Comparison] {
  let rom = FileManager.default.temporaryDirectory.appendingPathComponent(
    "carrel-bench-\(getpid()).rom")
  try resetVectorROM().write(to: rom)
  defer { try? FileManager.default.removeItem(at: rom) }
  let romCommands: [Server: [String]] = [
    .carrel: [
      settings.vmm, "run", "--memory", "64M", "--firmware", rom.path, "--serial", "stdio",
    ],
    .qemu: [
      "qemu-system-x86_64", "-machine", "pc,accel=kvm", "-m", "64", "-bios", rom.path,
      "-nodefaults", "-display", "none", "-vga", "std", "-serial", "stdio",
    ],
  ]
  var first: [Server: Samples] = [.carrel: Samples(), .qemu: Samples()]
  for _ in 0..<settings.rounds * 5 {
    for (server, command) in romCommands {
      let start = Clock.seconds
      let subject = try Subject(name: server.rawValue, command)
      defer { subject.stop() }
      first[server]?.add((try subject.awaitOutput(containing: "!", seconds: 10) - start) * 1000)
    }
  }
  var desktop: [Server: Samples] = [.carrel: Samples(), .qemu: Samples()]
  for _ in 0..<settings.rounds {
    for server in Server.allCases {
      let command = server.command(settings, scene: "idle", port: try freePort())
      let start = Clock.seconds
      let subject = try Subject(name: server.rawValue, command)
      defer { subject.stop() }
      let ready = try subject.awaitOutput(containing: settings.readyLine, seconds: 60)
      desktop[server]?.add((ready - start) * 1000)
    }
  }
  let ours = first[.carrel]?.median ?? 0
  return [
    Comparison("process start to reset vector's byte", unit: "ms", ours: ours, bound: 30),
    Comparison(
      "the same, against QEMU", unit: "ms", ours: ours, peer: first[.qemu]?.median ?? 0,
      bound: 1.0 / 3),
    Comparison(
      "process start to the desktop's ready line", unit: "ms",
      ours: desktop[.carrel]?.median ?? 0, peer: desktop[.qemu]?.median ?? 0),
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
  try Server.carrel.withScene("idle", settings, encoding: .zrle) { subject, viewer in
    try idle(viewer, seconds: 2)
    let vmm = Subject.proportionalSetSize(of: subject.process.processIdentifier)
    return [
      Comparison(
        "carrel-vmm beyond guest RAM and VRAM, PSS", unit: "MiB",
        ours: Double(vmm.own) / 1_048_576, bound: 24)
    ]
  }
}
