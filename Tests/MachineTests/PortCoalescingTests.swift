import TestSupport
import Testing

@Suite("Writes to ports that need not leave the guest", .needsKVM)
struct PortCoalescingTests {
  /// Fills the palette so often that its ports are told to KVM, the last time by one string
  /// instruction of more writes than KVM keeps, and sends it back.
  @Test("are carried out in order, all of them, before anything asks", arguments: [false, true])
  func palette(withWords: Bool) throws {
    var program = GuestProgram()
    let colours: UInt32 = 0x20_0000
    // mov edi, colours; mov ecx, 768; the byte is its index, 6 bits; rep
    program.emit(0xBF)
    program.emit(word: colours)
    program.emit(0x31, 0xC0)  // xor eax, eax
    let fill = program.bytes.count
    program.emit(0x88, 0xC3, 0x80, 0xE3, 0x3F)  // mov bl, al; and bl, 0x3f
    program.emit(0x88, 0x1C, 0x07, 0x40)  // mov [edi + eax], bl; inc eax
    program.emit(0x3D)  // cmp eax, 768
    program.emit(word: 768)
    program.jump(0x72, to: fill)  // jb
    for _ in 0..<3 {
      if withWords {
        // The graphics controller's index and its data in one.
        for value in UInt16(0)..<40 { program.outWord(0x3CE, (value % 4) << 8 | 8) }
      }
      program.outByte(0x3C8, 0)
      program.port(0x3C9)
      program.emit(0xBE)  // mov esi, colours
      program.emit(word: colours)
      program.emit(0xB9)  // mov ecx, 768
      program.emit(word: 768)
      program.emit(0xFC, 0xF3, 0x6E)  // cld; rep outsb
    }
    program.outByte(0x3C7, 0)
    program.emit(0xB9)  // mov ecx, 768
    program.emit(word: 768)
    let send = program.bytes.count
    program.port(0x3C9)
    program.emit(0xEC)  // in al, dx
    program.sendALWhenReady()
    program.emit(0x49)  // dec ecx
    program.jump(0x75, to: send)  // jnz
    if withWords {
      // The index that was written last is still there, and the last data.
      program.port(0x3CF)
      program.emit(0xEC)
      program.sendALWhenReady()
    }
    program.powerOff()
    let guest = try TestGuest(program) { configuration, _ in configuration.display = .standard }
    #expect(try guest.run() == .guestShutdown)
    let expected = (0..<768).map { UInt8($0 & 0x3F) } + (withWords ? [3] : [])
    #expect(try guest.directory.read("serial") == expected)
  }
}
