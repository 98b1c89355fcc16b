import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("More than the smallest machine", .needsKVM)
struct ProcessorTests {
  /// Real-mode code at 0x8000, where the second processor starts: sends A, says so
  /// at 0x9000, waits to be told to go on at 0x9001, sends C, says so and halts.
  private static let secondProcessor: [UInt8] = [
    0x31, 0xC0, 0x8E, 0xD8,  // xor ax, ax; mov ds, ax
    0xBA, 0xF8, 0x03, 0xB0, 0x41, 0xEE,  // mov dx, 3f8; mov al, 'A'; out dx, al
    0xC6, 0x06, 0x00, 0x90, 0x01,  // mov byte [9000], 1
    0x80, 0x3E, 0x01, 0x90, 0x01, 0x75, 0xF9,  // cmp byte [9001], 1; jne back
    0xB0, 0x43, 0xEE,  // mov al, 'C'; out dx, al
    0xC6, 0x06, 0x00, 0x90, 0x02,  // mov byte [9000], 2
    0xFA, 0xF4, 0xEB, 0xFD,  // cli; hlt; jmp back
  ]

  /// Starts the second processor, and goes on when a byte comes.
  private static var program: GuestProgram {
    var program = GuestProgram()
    program.waitForSerial()
    program.store(0, at: 0x9000)
    let code = secondProcessor + [UInt8](repeating: 0x90, count: 3)
    for at in stride(from: 0, to: code.count - 3, by: 4) {
      let word = (0..<4).reduce(UInt32(0)) { $0 | UInt32(code[at + $1]) << UInt32($1 * 8) }
      program.store(word, at: 0x8000 + UInt32(at))
    }
    program.store(0x1FF, at: 0xFEE0_00F0)  // enable the local APIC
    for command: UInt32 in [0x4500, 0x4608, 0x4608] {  // INIT, SIPI to 0x8000 twice
      program.store(0x0100_0000, at: 0xFEE0_0310)
      program.store(command, at: 0xFEE0_0300)
    }
    program.waitForByte(1, at: 0x9000)
    program.send("B")
    program.waitForSerial()
    program.store(0x0101, at: 0x9000)
    program.waitForByte(2, at: 0x9000)
    program.send("D")
    program.powerOff()
    return program
  }

  @Test("a second processor is started, reset with the first, saved and restored with it")
  func twoProcessors() throws {
    let guest = try TestGuest(Self.program) { configuration, directory in
      configuration.processors = 2
      configuration.serial = .socket(directory.path("line"))
    }
    let line = try SerialPeer(guest.machine.configuration)
    try line.socket.send([1])
    try guest.machine.resume()
    #expect(try line.read(2) == Array("AB".utf8))
    try guest.machine.reset()
    try line.socket.send([1])
    #expect(try line.read(2) == Array("AB".utf8), "after a reset it waits to be started, and is")
    try guest.machine.pause()
    let (second, secondLine) = try guest.moved()
    try second.resume()
    try secondLine.socket.send([1])
    #expect(try secondLine.read(2) == Array("CD".utf8))
    #expect(second.waitForEnd() == .guestShutdown)
  }

  @Test("RAM above 4 GiB holds what is written there, apart from what lies below")
  func highMemory() throws {
    var program = GuestProgram()
    func put(_ value: UInt32, at address: UInt32) {
      program.emit(0xBB)  // mov ebx, address
      program.emit(word: address)
      program.emit(0xC7, 0x03)  // mov dword [rbx], value
      program.emit(word: value)
    }
    // A directory for the fifth GiB, in the tables that the machine made.
    put(0x30_0003, at: 0xA020)
    put(0, at: 0xA024)
    put(0x20_0083, at: 0x30_0008)
    put(1, at: 0x30_000C)
    put(0x1111_1111, at: 0x20_1000)
    program.emit(0x48, 0xBF)  // mov rdi, 0x1_0020_1000
    program.emit(word: 0x20_1000)
    program.emit(word: 1)
    program.emit(0xC7, 0x07)  // mov dword [rdi], "high"
    program.emit(word: 0x6867_6968)
    program.emit(0x8B, 0x07)  // mov eax, [rdi]
    for _ in 0..<4 {
      program.sendAL()
      program.emit(0xC1, 0xE8, 0x08)  // shr eax, 8
    }
    program.emit(0xBB)
    program.emit(word: 0x20_1000)
    program.emit(0x8A, 0x03)  // mov al, [rbx]
    program.sendAL()
    program.powerOff()
    let guest = try TestGuest(program, isPVH: false) { configuration, _ in
      configuration.memory = 4 << 30
    }
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "high\u{11}")
  }
}

extension GuestProgram {
  /// Spins until the byte at `address` has that value.
  mutating func waitForByte(_ value: UInt8, at address: UInt32) {
    emit(0x80, 0x3D)  // cmp byte [address], value; jne back
    emit(word: address)
    emit(value, 0x75, 0xF7)
  }
}
