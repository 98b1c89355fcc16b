import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Saving and restoring a machine", .needsKVM)
struct SaveRestoreTests {
  private var program: GuestProgram { .summing(steps: 20_000) }

  @Test("a machine saved while it computes comes to the same result in another machine")
  func sameResult() throws {
    let undisturbed = try TestGuest(program)
    #expect(try undisturbed.run() == .guestShutdown)
    let expected = try undisturbed.directory.read("serial")
    #expect(expected.count == 8)

    let first = try TestGuest(program)
    try first.machine.resume()
    try eventually("output") { try !first.directory.read("serial").isEmpty }
    let saved = try first.machine.save()
    let seen = try first.directory.read("serial")
    #expect(seen.count < expected.count, "saved after the end")
    first.machine.quit()
    let second = try Machine(first.machine.configuration, from: saved)
    try second.resume()
    #expect(second.waitForEnd() == .guestShutdown)
    // The second machine's serial file was started anew.
    let rest = try first.directory.read("serial")
    #expect(Array(rest.suffix(4)) == Array(expected.suffix(4)))
    #expect((seen + rest).count >= expected.count)
  }

  @Test("a saved machine can be restored more than once, and the original goes on")
  func manyCopies() throws {
    let guest = try TestGuest(program)
    try guest.machine.resume()
    try eventually("output") { try !guest.directory.read("serial").isEmpty }
    let saved = try guest.machine.save()
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    let expected = try guest.directory.read("serial").suffix(4)
    for _ in 0..<2 {
      let copy = try Machine(guest.machine.configuration, from: saved)
      try copy.resume()
      #expect(copy.waitForEnd() == .guestShutdown)
      #expect(try guest.directory.read("serial").suffix(4) == expected)
    }
  }

  @Test("a state of another size of machine is refused")
  func otherMachine() throws {
    let guest = try TestGuest(program)
    let saved = try guest.machine.save()
    var configuration = guest.machine.configuration
    configuration.memory = 32 << 20
    let error = #expect(throws: MachineError.self) { try Machine(configuration, from: saved) }
    #expect(error?.kind == .state)
  }
}

extension GuestProgram {
  /// Computes a checksum over many steps, with a byte on the serial port every now
  /// and then, and ends with its four bytes.
  ///
  /// - Parameter more: instructions of each step, which may add to the sum at 0x200000 and
  ///   change EAX and EDX; EBX is the step's number.
  static func summing(
    steps: UInt32, more: (inout GuestProgram) -> Void = { _ in }
  ) -> GuestProgram {
    var program = GuestProgram()
    program.emit(0xBB)  // mov ebx, 1
    program.emit(word: 1)
    program.emit(0xB9)  // mov ecx, steps
    program.emit(word: steps)
    let loop = program.bytes.count
    program.emit(0x69, 0xDB)  // imul ebx, ebx, 1664525
    program.emit(word: 1_664_525)
    program.emit(0x43)  // inc ebx
    program.emit(0x01, 0x1D)  // add [0x200000], ebx
    program.emit(word: 0x20_0000)
    more(&program)
    program.emit(0xF7, 0xC1)  // test ecx, 0xfff
    program.emit(word: 0xFFF)
    program.emit(0x75, 0x09)  // jnz past the output
    program.emit(0xB0, 0x2E)  // mov al, '.'
    program.sendAL()
    program.emit(0x90)
    program.emit(0x49, 0x0F, 0x85)  // dec ecx; jnz loop
    program.emit(word: UInt32(bitPattern: Int32(loop - program.bytes.count - 4)))
    program.loadEAX(from: 0x20_0000)
    for _ in 0..<4 {
      program.sendAL()
      program.emit(0xC1, 0xE8, 0x08)  // shr eax, 8
    }
    program.powerOff()
    return program
  }
}
