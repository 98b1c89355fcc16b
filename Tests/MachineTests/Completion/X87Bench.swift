import CNativeCode
import Testing

import Machine

/// An x87 state with an operand, which the processor under the tests and the completion
/// can both go on from.
struct X87Bench {
  /// Of an FXSAVE area, without MXCSR.
  var image = [UInt8](repeating: 0, count: 160)
  var memory = [UInt8](repeating: 0, count: X87Bench.memorySize)
  var flags: UInt64 = 2

  static let memorySize = 128
  static let place: UInt64 = 0x4000

  var control: UInt64 {
    get { UInt64(littleEndian: image[0..<2]) }
    set { image.replaceSubrange(0..<2, with: newValue.bytes(2)) }
  }
  var status: UInt64 {
    get { UInt64(littleEndian: image[2..<4]) }
    set { image.replaceSubrange(2..<4, with: newValue.bytes(2)) }
  }
  /// A bit for each register that holds a value, by its number, not its place in the stack.
  var tags: UInt8 {
    get { image[4] }
    set { image[4] = newValue }
  }
  var opcode: UInt64 { UInt64(littleEndian: image[6..<8]) }
  var instructionPointer: UInt64 { UInt64(littleEndian: image[8..<16]) }
  var dataPointer: UInt64 { UInt64(littleEndian: image[16..<24]) }
  var top: Int { Int(status >> 11 & 7) }

  /// FNINIT, with values pushed in this order.
  init(_ values: Float80..., control: UInt64 = 0x37F) {
    self.control = control
    for (index, value) in values.reversed().enumerated() {
      self[index] = Self.bytes(value)
      tags |= 0x80 >> UInt8(values.count - 1 - index)
    }
    status = UInt64((8 - values.count) & 7) << 11
  }

  /// Any state, with many of the values that are special; nothing that waits.
  init(_ random: inout SystemRandomNumberGenerator) {
    control = UInt64.random(in: 0...0xF3F, using: &random) | 0x40
    if Bool.random(using: &random) { control |= 0x3F }
    status = UInt64.random(in: 0...0x7FFF, using: &random) & ~0x80
    status &= ~(~control & 0x3F)
    tags = Bool.random(using: &random) ? 0xFF : UInt8.random(in: .min ... .max, using: &random)
    for index in 0..<8 { self[index] = Self.anyValue(&random) }
    memory = (0..<Self.memorySize / 16).flatMap { _ in Self.anyOperand(&random) }
    flags = UInt64.random(in: 0...0xFFF, using: &random) & 0x8D5 | 0x202
  }

  /// ST(i).
  subscript(index: Int) -> [UInt8] {
    get { Array(image[32 + index * 16..<42 + index * 16]) }
    set { image.replaceSubrange(32 + index * 16..<42 + index * 16, with: newValue) }
  }

  func value(_ index: Int) -> Float80 {
    let bytes = self[index]
    return Float80(
      sign: bytes[9] & 0x80 != 0 ? .minus : .plus,
      exponentBitPattern: UInt(bytes[8]) | UInt(bytes[9] & 0x7F) << 8,
      significandBitPattern: UInt64(littleEndian: bytes[..<8]) & ~(1 << 63))
  }

  static func bytes(_ value: Float80) -> [UInt8] {
    let whole: UInt64 = value.exponentBitPattern == 0 ? 0 : 1 << 63
    let sign: UInt64 = value.sign == .minus ? 0x8000 : 0
    return (value.significandBitPattern | whole).bytes(8)
      + (UInt64(value.exponentBitPattern) | sign).bytes(2)
  }

  private static func anyValue(_ random: inout SystemRandomNumberGenerator) -> [UInt8] {
    let plain: [Float80] = [
      0, -0.0, 1, -1, 0.5, 3, 10, 1e10, -2.5, .infinity, -.infinity, .nan, .signalingNaN,
      .greatestFiniteMagnitude, .leastNormalMagnitude, .leastNonzeroMagnitude, .pi, 0x1p63,
      -0x1p31, 32767.5, 1e300, 1e-320,
    ]
    switch Int.random(in: 0..<4, using: &random) {
    case 0: return (0..<10).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    case 1: return bytes(Float80.random(in: -100...100, using: &random))
    default: return bytes(plain.randomElement(using: &random) ?? 0)
    }
  }

  /// 16 bytes that begin like one in some format.
  private static func anyOperand(_ random: inout SystemRandomNumberGenerator) -> [UInt8] {
    let value = Double.random(in: -1000...1000, using: &random)
    let start: [UInt8] =
      switch Int.random(in: 0..<6, using: &random) {
      case 0: UInt64(Float(value).bitPattern).bytes(4)
      case 1: value.bitPattern.bytes(8)
      case 2: UInt64(bitPattern: Int64(value)).bytes(8)
      case 3: [0x12, 0x34, 0x56, 0x78, 0x90, 0x98, 0x76, 0x54, 0x32, 0x80]
      case 4: anyValue(&random)
      default:
        [UInt64(0), .max, 1 << 63, 0x7F80_0000, 0x7FF0 << 48, 1].randomElement()?.bytes(8) ?? []
      }
    return start + (start.count..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) }
  }

  // MARK: Execution

  /// By this host's processor. The instruction's memory operand is at RSI.
  func native(_ code: [UInt8]) throws -> X87Bench {
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: 512 + Self.memorySize, alignment: 64)
    defer { buffer.deallocate() }
    let (state, operand) = (0..<512, 512..<512 + Self.memorySize)
    buffer.copyBytes(from: image + Array(repeating: 0, count: 352) + memory)
    UnsafeMutableRawBufferPointer(rebasing: buffer[24..<28]).copyBytes(from: [0x80, 0x1F, 0, 0])
    var registers = cnative_state()
    let base = UInt64(UInt(bitPattern: buffer.baseAddress))
    registers.general.3 = base
    registers.general.6 = base + UInt64(operand.lowerBound)
    registers.flags = flags
    // fxrstor64 [rbx]; …; fxsave64 [rbx]; fninit
    let all = [0x48, 0x0F, 0xAE, 0x0B] + code + [0x48, 0x0F, 0xAE, 0x03, 0xDB, 0xE3]
    try #require(cnative_run(all, all.count, &registers) == 0)
    var after = self
    after.image = Array(buffer[state].prefix(24)) + image[24..<32] + Array(buffer[32..<160])
    after.memory = Array(buffer[operand])
    after.flags = registers.flags
    return after
  }

  /// A processor that is to complete it, with RSI as above.
  func processor(bits: Int = 64, level: UInt8 = 0) -> TestProcessor {
    var processor = TestProcessor(bits: bits, level: level)
    processor.port.area.replaceSubrange(0..<24, with: image[0..<24])
    processor.port.area.replaceSubrange(32..<160, with: image[32..<160])
    processor.port.writePhysical(Self.place, memory)
    processor.state[6] = Self.place
    processor.state.general.rflags = flags
    return processor
  }

  init(after processor: TestProcessor) {
    image =
      Array(processor.port.area[0..<24]) + Array(repeating: 0, count: 8)
      + processor.port.area[32..<160]
    memory = processor.port.readPhysical(Self.place, count: Self.memorySize)
    flags = processor.state.general.rflags
  }

  func completed(_ code: [UInt8]) throws -> X87Bench {
    var processor = processor()
    try processor.run(code)
    return X87Bench(after: processor)
  }
}
