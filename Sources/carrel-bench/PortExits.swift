import Foundation
import KVM
import LinuxSystem

/// Port accesses a second of one ROM's real-mode loop under both, which is to say how soon
/// a processor that left the guest is back in it, or whether it has to leave at all. On hosts
/// whose KVM interprets that loop, most of the time is the interpreter's.
func measurePortExits(_ settings: Settings) throws -> [Comparison] {
  // Port 0x80 takes firmware's progress codes, and 0x3C9 a palette's colours; nothing answers
  // at 0x2E8.
  let accesses: [PortLoop.Access] = [
    .init(name: "OUT to port 0x80", port: 0x80, code: 0xEE, isCoalesced: true),
    .init(name: "OUT to the VGA's palette", port: 0x3C9, code: 0xEE, isCoalesced: true),
    .init(name: "IN from an unassigned port", port: 0x2E8, code: 0xEC, isCoalesced: false),
  ]
  return try accesses.flatMap { access in
    let rom = FileManager.default.temporaryDirectory.appendingPathComponent(
      "carrel-bench-\(getpid()).rom")
    try PortLoop.rom(access).write(to: rom)
    defer { try? FileManager.default.removeItem(at: rom) }
    var rates: [Server: Samples] = [:]
    var floor = Samples()
    // The kernel counts in hundredths of a second: together, not for each turn.
    var totals: [Server: (exits: Double, user: Double)] = [:]
    for _ in 0..<settings.turns {
      floor.add(
        try PortFloor(access).rate(seconds: settings.secondsPerTurn))
      for server in [Server.carrel, .qemu] {
        let subject = try Subject(
          name: server.title, server.command(settings, firmware: rom.path))
        defer { subject.stop() }
        let turn = try PortLoop.measure(subject, seconds: settings.secondsPerTurn)
        rates[server, default: Samples()].add(turn.exits / turn.seconds)
        totals[server, default: (0, 0)].exits += turn.exits
        totals[server, default: (0, 0)].user += turn.user
      }
    }
    let (ours, peer) = (rates[.carrel]?.median ?? 0, rates[.qemu]?.median ?? 0)
    // Nobody is faster than KVM itself.
    let isAttainable = floor.median >= peer * 1.2
    return [
      Comparison(
        "port accesses, \(access.name)", unit: "/s", ours: ours, peer: peer,
        bound: isAttainable ? 1.2 : nil, higherIsBetter: true,
        note: isAttainable ? nil : "KVM alone is less than 1.2 times as fast as the peer"),
      Comparison(
        "  beside KVM_RUN and nothing else", unit: "/s", ours: ours, peer: floor.median,
        bound: 0.9, higherIsBetter: true),
      Comparison(
        "  CPU for each outside of KVM", unit: "us",
        ours: totals[.carrel].map { $0.user / $0.exits * 1e6 } ?? 0,
        peer: totals[.qemu].map { $0.user / $0.exits * 1e6 } ?? 0),
    ]
  }
}

/// The same program on KVM with nobody who answers, and writes that pile up in KVM where they
/// may: what any machine monitor at most reaches.
private final class PortFloor {
  private let machine: KVMMachine
  private let processor: VirtualCPU
  private let rom: MemoryMapping

  init(_ access: PortLoop.Access) throws {
    let image = PortLoop.rom(access)
    machine = try KVMSystem().makeMachine()
    rom = try MemoryMapping(anonymous: image.count)
    rom.bytes.copyBytes(from: image)
    try machine.setMemory(slot: 0, at: 1 << 32 - UInt64(image.count), rom.bytes, .readOnly)
    processor = try machine.makeVCPU(identifier: 0)
    if access.isCoalesced, machine.canCoalescePortWrites {
      try machine.coalesceWrites(.ports(access.port, size: 1))
    }
  }

  /// Accesses a second.
  func rate(seconds: Double) throws -> Double {
    var accesses = 0
    let start = Clock.seconds
    var end = start
    repeat {
      for _ in 0..<1000 {
        guard case .port = try processor.run() else {
          throw BenchError("KVM left the port loop for something else")
        }
        accesses += 1
        processor.drainCoalescedWrites { _, _, _, _ in accesses += 1 }
      }
      end = Clock.seconds
    } while end < start + seconds
    return Double(accesses) / (end - start)
  }
}

extension Server {
  /// The command line for a ROM without anything else, COM1 on standard output.
  func command(_ settings: Settings, firmware: String) -> [String] {
    switch self {
    case .carrel, .site:
      [settings.vmm, "run", "--memory", "64M", "--firmware", firmware, "--serial", "stdio"]
    case .qemu:
      [
        "qemu-system-x86_64", "-machine", "pc,accel=kvm", "-m", "64", "-bios", firmware,
        "-nodefaults", "-display", "none", "-vga", "std", "-serial", "stdio",
      ]
    }
  }
}

/// A program that writes a byte to COM1 after every so many port accesses.
private enum PortLoop {
  struct Access {
    let name: String
    let port: UInt16
    /// in al, dx or out dx, al
    let code: UInt8
    /// Whether the machine's devices can wait for it.
    let isCoalesced: Bool
  }

  private static let turns: UInt16 = 500
  private static let unrolled = 16

  /// 64 KiB that end at 4 GiB, entered at the reset vector.
  static func rom(_ access: Access) -> Data {
    var rom = [UInt8](repeating: 0xF4, count: 65536)
    // mov cx, turns
    var code: [UInt8] = [0xB9, UInt8(turns & 0xFF), UInt8(turns >> 8)]
    // mov dx, port; the accesses; dec cx; jnz to the mov dx
    var body: [UInt8] = [0xBA, UInt8(access.port & 0xFF), UInt8(access.port >> 8)]
    body += [UInt8](repeating: access.code, count: unrolled)
    body += [0x49, 0x75]
    body.append(UInt8(truncatingIfNeeded: -(body.count + 1)))
    code += body
    // mov dx, 0x3f8; mov al, '+'; out dx, al; jmp to the start
    code += [0xBA, 0xF8, 0x03, 0xB0, 0x2B, 0xEE, 0xEB]
    code.append(UInt8(truncatingIfNeeded: -(code.count + 1)))
    rom.replaceSubrange(0..<code.count, with: code)
    // jmp 0, in the segment that ends at 4 GiB.
    rom.replaceSubrange(0xFFF0..<0xFFF3, with: [0xE9, 0x0D, 0x00])
    return Data(rom)
  }

  /// Accesses over `seconds`, after the program's first byte, and the CPU seconds that the
  /// process itself used for them.
  static func measure(_ subject: Subject, seconds: Double) throws -> (
    exits: Double, seconds: Double, user: Double
  ) {
    let pid = subject.process.processIdentifier
    _ = try subject.awaitOutput(containing: "+", seconds: 20)
    // What was written in the meantime counts for nothing.
    let start = try subject.awaitMoreOutput(seconds: 20)
    let (first, user) = (subject.collected.count, Subject.userSeconds(of: pid))
    var end = start
    while end < start + seconds {
      let count = subject.collected.count
      end = try subject.awaitMoreOutput(seconds: 20)
      guard subject.collected[count...].allSatisfy({ $0 == 0x2B }) else {
        throw BenchError("\(subject.name) wrote something else than the program")
      }
    }
    // The byte costs an exit, too.
    let exits = Double((subject.collected.count - first) * (Int(turns) * unrolled + 1))
    return (exits, end - start, Subject.userSeconds(of: pid) - user)
  }
}
