import CNativeCode
import Testing

import Machine

/// Each instruction that programs may execute does, with any operands, what the processor
/// under the tests does.
@Suite("Completed instructions against the processor's own")
struct NativeComparisonTests {
  /// Lies where it is for both: the processor reads it at its address in this process,
  /// the completion at `memory`.
  private static let memory: UInt64 = 0x4000
  private static let memorySize = 64

  private static let interesting: [UInt64] = [
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, .max, 0x0123_4567_89AB_CDEF, 0x1F05, 0x4020,
  ]

  @Test("leave the same registers, flags and memory", arguments: NativeRows.all.map(\.text))
  func same(_ text: String) throws {
    let code = try #require(NativeRows.all.first { $0.text == text }).code
    try #require(Self.processorHas(text), "the processor of this host lacks '\(text)'")
    var random = SystemRandomNumberGenerator()
    for turn in 0..<60 {
      var input = Input(&random)
      if turn % 3 == 0 { input.matchMemory(of: text) }
      try Self.compare(text, code, input)
    }
  }

  private struct Input {
    var general: [UInt64]
    var flags: UInt64
    var vectors: [UInt8]
    var memory: [UInt8]

    init(_ random: inout SystemRandomNumberGenerator) {
      general = (0..<16).map { _ in
        Bool.random(using: &random)
          ? UInt64.random(in: .min ... .max, using: &random)
          : interesting.randomElement(using: &random) ?? 0
      }
      flags = UInt64.random(in: 0...0xFFFF, using: &random) & 0x8D5 | 0x202
      // Few values, so that lanes are equal now and then.
      vectors = (0..<256).map { _ in [0, 0x7F, 0x80, 0xFF, 0x5A].randomElement(using: &random) ?? 0
      }
      memory = (0..<memorySize).map { _ in UInt8.random(in: 0...3, using: &random) &* 0x55 }
    }

    /// So that comparisons with memory succeed.
    mutating func matchMemory(of text: String) {
      let offset =
        text.contains("16(") ? 16 : text.contains(" 8(") ? 8 : text.contains(" 3(") ? 3 : 0
      let count = text.contains("16b") ? 8 : 4
      general[0] = UInt64(littleEndian: memory[offset..<offset + count])
      general[2] = UInt64(littleEndian: memory[offset + count..<offset + 2 * count])
    }
  }

  private static func compare(_ text: String, _ code: [UInt8], _ input: Input) throws {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: memorySize, alignment: 64)
    defer { buffer.deallocate() }
    buffer.copyBytes(from: input.memory)
    var native = cnative_state()
    // SAFETY: the tuples are arrays of C: 16 words, and 256 bytes.
    withUnsafeMutableBytes(of: &native.general) { target in
      for (index, value) in input.general.enumerated() {
        target.storeBytes(of: value, toByteOffset: index * 8, as: UInt64.self)
      }
      target.storeBytes(
        of: UInt64(UInt(bitPattern: buffer.baseAddress)), toByteOffset: 6 * 8, as: UInt64.self)
    }
    // SAFETY: as above.
    withUnsafeMutableBytes(of: &native.vectors) { $0.copyBytes(from: input.vectors) }
    native.flags = input.flags
    try #require(cnative_run(code, code.count, &native) == 0)

    var processor = TestProcessor()
    for index in 0..<16 where index != 4 { processor.state[index] = input.general[index] }
    processor.state[6] = memory
    processor.state.general.rflags = input.flags
    processor.port.writePhysical(memory, input.memory)
    processor.port.area.replaceSubrange(160..<416, with: input.vectors)
    try processor.run(code)

    for index in 0..<16 where index != 4 && index != 6 {
      // SAFETY: as above.
      let expected = withUnsafeBytes(of: &native.general) {
        $0.load(fromByteOffset: index * 8, as: UInt64.self)
      }
      #expect(processor.state[index] == expected, "\(text): register \(index) of \(input)")
    }
    // AF and PF are undefined after some, which leave them alone here.
    let mask = defined(text)
    #expect(
      processor.state.general.rflags & mask == native.flags & mask, "\(text): flags of \(input)")
    // SAFETY: as above.
    let vectors = withUnsafeBytes(of: &native.vectors) { Array($0) }
    #expect(Array(processor.port.area[160..<416]) == vectors, "\(text): vectors of \(input)")
    #expect(
      processor.port.readPhysical(memory, count: memorySize) == Array(buffer),
      "\(text): memory of \(input)")
    #expect(processor.state.general.rip == TestProcessor.code + UInt64(code.count))
  }

  /// CF, ZF, SF and OF, except where the manual leaves one undefined.
  private static func defined(_ text: String) -> UInt64 {
    let (carry, zero, sign, overflow): (UInt64, UInt64, UInt64, UInt64) = (1, 0x40, 0x80, 0x800)
    if text.hasPrefix("lzcnt") || text.hasPrefix("tzcnt") { return carry | zero }
    if text.hasPrefix("bextr") { return carry | zero | overflow }
    if text.hasPrefix("blsmsk") { return carry | sign | overflow }
    return carry | zero | sign | overflow
  }

  private static func processorHas(_ text: String) -> Bool {
    func bit(_ leaf: UInt32, _ register: Int, _ number: UInt32) -> Bool {
      var registers: [UInt32] = [0, 0, 0, 0]
      cnative_cpuid(leaf, 0, &registers)
      return registers[register] >> number & 1 != 0
    }
    let name = text.prefix { $0.isLetter || $0.isNumber }
    return switch name {
    case "popcnt": bit(1, 2, 23)
    case "lzcnt": bit(0x8000_0001, 2, 5)
    case "movbe": bit(1, 2, 22)
    case "tzcnt", "andn", "bextr", "blsi", "blsr", "blsmsk": bit(7, 1, 3)
    case "bzhi", "pdep", "pext", "mulx", "rorx", "sarx", "shlx", "shrx": bit(7, 1, 8)
    case "adcx", "adox": bit(7, 1, 19)
    default: !name.hasPrefix("crc32") || bit(1, 2, 20)
    }
  }
}
