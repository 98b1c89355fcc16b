import DeviceModel

/// A guest that drives the AC'97 controller, at the place where the machine has it.
struct AC97Program {
  enum Box: UInt32 {
    case input = 0x00
    case output = 0x10
  }

  /// Where the list lies, and samples that come with the program, from its start on.
  private static let list = 0x400
  private static let samples = 0x800
  static let framesPerBuffer = 3000
  private static let byte: [UInt8] = [0xEE]
  private static let word: [UInt8] = [0x66, 0xEF]
  private static let long: [UInt8] = [0xEF]

  private var program = GuestProgram()

  /// Finds its registers (ebx: mixer, esi: bus masters) and takes the codec out of reset.
  init() {
    program.outLong(0xCF8, 0x8000_2004)
    program.outWord(0xCFC, 5)
    loadBase(0x10, [0x89, 0xC3])
    loadBase(0x14, [0x89, 0xC6])
    out(esi: 0x2C, 2, Self.long)
    set(0x02, 0)
    set(0x18, 0x0808)
  }

  private mutating func loadBase(_ register: UInt32, _ move: [UInt8]) {
    program.outLong(0xCF8, 0x8000_2000 | register)
    program.port(0xCFC)
    program.emit(0xED, 0x24, 0xFC)  // in eax, dx; and al, ~3
    for byte in move { program.emit(byte) }
  }

  /// lea edx, [ebx or esi + offset]
  private mutating func port(_ base: UInt8, _ offset: UInt32) {
    program.emit(0x8D, 0x90 | base)
    program.emit(word: offset)
  }

  private mutating func out(esi offset: UInt32, _ value: UInt32, _ code: [UInt8]) {
    port(6, offset)
    program.loadEAX(value)
    for byte in code { program.emit(byte) }
  }

  /// Writes a register of the codec.
  mutating func set(_ register: UInt32, _ value: UInt32) {
    port(3, register)
    program.loadEAX(value)
    for byte in Self.word { program.emit(byte) }
  }

  /// Moves the samples of that many buffers, and waits until the box halts.
  mutating func run(_ box: Box, buffers: Int) {
    let registers = box.rawValue
    out(esi: registers, UInt32(GuestProgram.origin) + UInt32(Self.list), Self.long)
    out(esi: registers + 5, UInt32(buffers - 1), Self.byte)
    out(esi: registers + 0xB, 1, Self.byte)
    let loop = program.bytes.count
    port(6, registers + 6)
    program.emit(0x66, 0xED, 0xA8, 0x01)  // in ax, dx; test al, 1
    program.jump(0x74, to: loop)
    out(esi: registers + 0xB, 0, Self.byte)
  }

  /// Switched off at its end, with a list of buffers that follow one another: from
  /// `address` on, or where `frames` lie, which come with the program.
  func finished(_ frames: [AudioFrame] = [], buffers: Int, at address: UInt32? = nil)
    -> GuestProgram
  {
    var program = program
    program.powerOff()
    var data = [UInt8](repeating: 0, count: Self.list - program.bytes.count)
    let first = address ?? UInt32(GuestProgram.origin) + UInt32(Self.samples)
    for buffer in 0..<buffers {
      // The last one ends in silence.
      let flags: UInt32 = buffer == buffers - 1 ? 1 << 30 : 0
      let words = [
        first + UInt32(buffer * Self.framesPerBuffer * 4), UInt32(Self.framesPerBuffer * 2) | flags,
      ]
      for word in words { data += (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
    }
    data += [UInt8](repeating: 0, count: Self.samples - Self.list - buffers * 8)
    for sample in frames.flatMap({ [$0.left, $0.right] }) {
      data += [UInt8(truncatingIfNeeded: sample), UInt8(truncatingIfNeeded: sample >> 8)]
    }
    for byte in data { program.emit(byte) }
    return program
  }
}
