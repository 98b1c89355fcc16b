import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Stopping in the middle of an instruction", .needsKVM)
struct ParkingTests {
  private static let file = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 13 ^ $0 >> 5) }
  private static let turns: UInt32 = 40
  private static let increments: UInt32 = 8000

  /// Reads a file of fw_cfg by `REP INSB` again and again and adds up what came;
  /// then increments the graphics controller's bit mask through the adapter's MMIO, a read
  /// and a write that each exit. Sends the sum and the register.
  private var program: GuestProgram {
    var program = GuestProgram()
    program.emit(0xFC, 0x31, 0xDB, 0xBD)  // cld; xor ebx, ebx; mov ebp, turns
    program.emit(word: Self.turns)
    let turn = program.bytes.count
    program.outWord(0x510, 0x20)
    program.emit(0xBF)  // mov edi, 0x20_0ff0: the buffer crosses pages
    program.emit(word: 0x20_0FF0)
    program.emit(0xB9)  // mov ecx, 4096
    program.emit(word: 4096)
    program.port(0x511)
    program.emit(0xF3, 0x6C, 0xBE)  // rep insb; mov esi, 0x20_0ff0
    program.emit(word: 0x20_0FF0)
    program.emit(0xB9)  // mov ecx, 1024
    program.emit(word: 1024)
    program.emit(0xAD, 0x01, 0xC3, 0xE2, 0xFB)  // lodsd; add ebx, eax; loop back
    program.emit(0x4D, 0x0F, 0x85)  // dec ebp; jnz turn
    program.emit(word: UInt32(bitPattern: Int32(turn - program.bytes.count - 4)))
    program.emit(0x89, 0xD8)  // mov eax, ebx
    for _ in 0..<4 {
      program.sendAL()
      program.emit(0xC1, 0xE8, 0x08)  // shr eax, 8
    }
    program.loadVGARegisters()
    program.emit(0x66, 0xC7, 0x86)  // mov word [esi+0x40e], 0x0008: the bit mask is 0
    program.emit(word: 0x40E)
    program.emit(0x08, 0x00, 0xB9)  // mov ecx, increments
    program.emit(word: Self.increments)
    program.emit(0xFE, 0x86)  // inc byte [esi+0x40f]
    program.emit(word: 0x40F)
    program.emit(0xE2, 0xF8, 0x8A, 0x86)  // loop back; mov al, [esi+0x40f]
    program.emit(word: 0x40F)
    program.sendAL()
    program.powerOff()
    return program
  }

  private func guest() throws -> TestGuest {
    try TestGuest(program) { configuration, _ in
      configuration.memory = 4 << 20
      configuration.display = .standard
      configuration.firmwareFiles = [.init(name: "a", bytes: Self.file)]
    }
  }

  private var expected: [UInt8] {
    let words = stride(from: 0, to: 4096, by: 4).map { at in
      (0..<4).reduce(UInt32(0)) { $0 | UInt32(Self.file[at + $1]) << UInt32($1 * 8) }
    }
    let sum = words.reduce(UInt32(0), &+) &* Self.turns
    return (0..<4).map { UInt8(truncatingIfNeeded: sum >> ($0 * 8)) }
      + [UInt8(truncatingIfNeeded: Self.increments)]
  }

  @Test("a guest that is paused all the time loses no byte of its string input, and no write")
  func pausing() throws {
    let guest = try guest()
    try guest.machine.resume()
    var pauses = 0
    while guest.machine.status != .ended {
      guard (try? guest.machine.pause()) != nil, (try? guest.machine.resume()) != nil else { break }
      pauses += 1
    }
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    let sent = try guest.directory.read("serial")
    #expect(sent == expected, "\(sent) instead of \(expected)")
    #expect(pauses > 50)
  }

  @Test("a guest that moves from machine to machine loses none either")
  func restoring() throws {
    let guest = try guest()
    var machine = guest.machine
    var sent: [UInt8] = []
    var moves = 0
    try machine.resume()
    while machine.status != .ended, moves < 40 {
      guard (try? machine.pause()) != nil, let saved = try? machine.save() else { break }
      machine.tearDown()
      sent += try guest.directory.read("serial")
      machine = try Machine(guest.machine.configuration, from: saved)
      try machine.resume()
      moves += 1
    }
    #expect(machine.waitForEnd() == .guestShutdown)
    sent += try guest.directory.read("serial")
    #expect(sent == expected, "\(sent) instead of \(expected)")
    #expect(moves > 10)
  }
}

extension GuestProgram {
  /// ESI: the adapter's register BAR (PCI 0:2.0, base address register 2).
  mutating func loadVGARegisters() {
    outLong(0xCF8, 0x8000_1018)
    port(0xCFC)
    emit(0xED, 0x24, 0xF0, 0x89, 0xC6)  // in eax, dx; and al, 0xf0; mov esi, eax
  }
}
