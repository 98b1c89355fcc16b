import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Many processors", .needsKVM)
struct ManyProcessorsTests {
  /// Real-mode code at 0x8000 that goes on in long mode at 0x8040, with the tables of
  /// `startAll`.
  private static let toLongMode: [UInt8] = [
    0xFA, 0x31, 0xC0, 0x8E, 0xD8,  // cli; xor ax, ax; mov ds, ax
    0x0F, 0x01, 0x16, 0xF0, 0x7F,  // lgdt [7ff0]
    0x66, 0xB8, 0x20, 0x00, 0x00, 0x00, 0x0F, 0x22, 0xE0,  // mov eax, PAE; mov cr4, eax
    0x66, 0xB8, 0x00, 0x00, 0x30, 0x00, 0x0F, 0x22, 0xD8,  // mov eax, 300000; mov cr3, eax
    0x66, 0xB9, 0x80, 0x00, 0x00, 0xC0, 0x0F, 0x32,  // mov ecx, EFER; rdmsr
    0x66, 0x0D, 0x00, 0x01, 0x00, 0x00, 0x0F, 0x30,  // or eax, LME; wrmsr
    0x0F, 0x20, 0xC0, 0x66, 0x0D, 0x01, 0x00, 0x00, 0x80,  // mov eax, cr0; or eax, PG|PE
    0x0F, 0x22, 0xC0,  // mov cr0, eax
    0x66, 0xEA, 0x40, 0x80, 0x00, 0x00, 0x10, 0x00,  // jmp 10:8040
  ]

  /// In long mode: its initial APIC identifier in EBX, a byte at 201000 for it, one more
  /// in the word at 200000.
  private static let report: [UInt8] = [
    0xB8, 0x01, 0x00, 0x00, 0x00, 0x0F, 0xA2,  // mov eax, 1; cpuid
    0xC1, 0xEB, 0x18,  // shr ebx, 24
    0xC6, 0x83, 0x00, 0x10, 0x20, 0x00, 0x01,  // mov byte [rbx+201000], 1
    0xF0, 0xFF, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00,  // lock inc dword [200000]
  ]

  /// cli; hlt; jmp back
  private static let stop: [UInt8] = [0xFA, 0xF4, 0xEB, 0xFC]
  /// inc dword [rbx*4+202000]; jmp back
  private static let count: [UInt8] = [0xFF, 0x04, 0x9D, 0x00, 0x20, 0x20, 0x00, 0xEB, 0xF7]

  /// Starts all other processors at once and waits until they have reported.
  private func startAll(_ processors: Int, then rest: [UInt8]) -> GuestProgram {
    var program = GuestProgram()
    program.store(0, at: 0x20_0000)
    program.store(0x3000_001F, at: 0x7FF0)
    program.store(0x30, at: 0x7FF4)
    // Four levels of tables for the first 4 MiB, and a descriptor for 64-bit code.
    for (value, address): (UInt32, UInt32) in [
      (0x30_1003, 0x30_0000), (0x30_2003, 0x30_1000), (0x83, 0x30_2000), (0x20_0083, 0x30_2008),
      (0xFFFF, 0x30_3010), (0x00AF_9B00, 0x30_3014),
    ] { program.store(value, at: address) }
    let code = Self.toLongMode + Self.report + rest + [0x90, 0x90, 0x90]
    for at in stride(from: 0, to: code.count - 3, by: 4) {
      let word = (0..<4).reduce(UInt32(0)) { $0 | UInt32(code[at + $1]) << UInt32($1 * 8) }
      program.store(word, at: 0x8000 + UInt32(at))
    }
    program.store(0x1FF, at: 0xFEE0_00F0)  // enable the local APIC
    // INIT, SIPI to 0x8000 twice, to all but this one.
    for command: UInt32 in [0xC4500, 0xC4608, 0xC4608] { program.store(command, at: 0xFEE0_0300) }
    program.emit(0x83, 0x3D)  // cmp dword [200000], processors - 1; jne back
    program.emit(word: 0x20_0000)
    program.emit(UInt8(processors - 1), 0x75, 0xF7)
    return program
  }

  @Test(
    "all processors are started at once, reach long mode, and have identifiers of their own",
    arguments: [1, 2, 7, 64])
  func start(processors: Int) throws {
    var program = startAll(processors, then: Self.stop)
    for index in 1..<max(2, processors) {
      program.emit(0xA0)  // mov al, [201000+index]
      program.emit(word: 0x20_1000 + UInt32(index))
      program.sendAL()
    }
    program.powerOff()
    let guest = try TestGuest(program) { configuration, _ in
      configuration.processors = processors
    }
    #expect(try guest.run() == .guestShutdown)
    let reports = try guest.directory.read("serial")
    #expect(reports == (1..<max(2, processors)).map { _ in processors > 1 ? 1 : 0 })
  }

  @Test("pause stops all processors, resume lets all go on, reset starts all anew")
  func together() throws {
    var program = startAll(4, then: Self.count)
    program.send("s")
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in configuration.processors = 4 }
    func counters(_ saved: SavedMachine) throws -> [[UInt8]] {
      try saved.copiedMemory().map().withBytes { bytes in
        (1..<4).map { Array(bytes[0x20_2000 + $0 * 4..<0x20_2004 + $0 * 4]) }
      }
    }
    func awaitProgress(of machine: Machine, from start: [[UInt8]]) throws {
      try eventually("all processors to go on") {
        zip(try counters(try machine.save()), start).allSatisfy { $0 != $1 }
      }
    }
    try guest.machine.resume()
    try guest.awaitOutput("s")
    try awaitProgress(of: guest.machine, from: Array(repeating: [0, 0, 0, 0], count: 3))
    try guest.machine.pause()
    let saved = try guest.machine.save()
    let first = try counters(saved)
    #expect(try counters(try guest.machine.save()) == first)
    try guest.machine.resume()
    try awaitProgress(of: guest.machine, from: first)
    try guest.machine.reset()
    try guest.awaitOutput("ss")
    guest.machine.quit()

    let copy = try Machine(guest.machine.configuration, from: saved)
    #expect(try counters(try copy.save()) == first)
    try copy.resume()
    try awaitProgress(of: copy, from: first)
    copy.quit()
  }

  @Test("a guest finds the processor that was asked for, also where it goes on")
  func baseline() throws {
    var program = GuestProgram()
    program.loadEAX(0x8000_0002)
    program.emit(0x0F, 0xA2)  // cpuid
    for _ in 0..<4 {
      program.sendAL()
      program.emit(0xC1, 0xE8, 0x08)  // shr eax, 8
    }
    program.powerOff()
    let guest = try TestGuest(program) { configuration, _ in
      configuration.processorPolicy = .baseline(.v1)
    }
    let saved = try guest.machine.save()
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "Carr")
    var configuration = guest.machine.configuration
    let copy = try Machine(configuration, from: saved)
    try copy.resume()
    #expect(copy.waitForEnd() == .guestShutdown)
    #expect(guest.output == "Carr")
    configuration.processorPolicy = .host
    let error = #expect(throws: MachineError.self) { try Machine(configuration, from: saved) }
    #expect(error?.problem.contains("\"x86-64-v1\", not \"host\"") == true)
  }
}
