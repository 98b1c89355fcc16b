/// An XSAVE area, seen for the x87 state in its first bytes (SDM vol. 1, 10.5.1).
struct FloatingPointArea {
  private(set) var bytes: [UInt8]

  /// Exceptions: IE, DE, ZE, OE, UE, PE.
  static let exceptions: UInt64 = 0x3F
  /// PE is the one that comes after the result is stored.
  static let precision: UInt64 = 1 << 5
  /// ES, an exception that is not masked, and B, which is the same.
  static let summary: UInt64 = 1 << 7 | 1 << 15

  private static let headSize = 24
  private static let registers = 32..<160

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  private subscript(place: Range<Int>) -> UInt64 {
    get { UInt64(littleEndian: bytes[place]) }
    set { bytes.replaceSubrange(place, with: newValue.bytes(place.count)) }
  }

  var control: UInt64 {
    get { self[0..<2] }
    set { self[0..<2] = newValue }
  }
  var status: UInt64 {
    get { self[2..<4] }
    set { self[2..<4] = newValue }
  }
  /// Of the last instruction: 11 bits of it, where it was, and its operand in memory.
  var opcode: UInt64 {
    get { self[6..<8] & 0x7FF }
    set { self[6..<8] = newValue & 0x7FF }
  }
  var instructionPointer: UInt64 {
    get { self[8..<16] }
    set { self[8..<16] = newValue }
  }
  var dataPointer: UInt64 {
    get { self[16..<24] }
    set { self[16..<24] = newValue }
  }

  /// Exceptions that have arisen and are not masked.
  var waiting: UInt64 { status & ~control & Self.exceptions }

  /// Whether the next instruction is to raise #MF. ES follows from the rest.
  var isWaiting: Bool { waiting != 0 || status & 1 << 7 != 0 }

  /// Every exception masked, 64-bit precision, all registers empty; their contents stay.
  mutating func initialize() {
    bytes.replaceSubrange(0..<Self.headSize, with: [0x7F, 0x03] + Array(repeating: 0, count: 22))
  }

  /// The part that FXSAVE calls x87's.
  var image: [UInt8] { Array(bytes.prefix(Self.registers.upperBound)) }

  /// Takes over an image, without MXCSR.
  mutating func replaceImage(_ image: [UInt8]) {
    bytes.replaceSubrange(0..<Self.headSize, with: image[0..<Self.headSize])
    bytes.replaceSubrange(Self.registers, with: image[Self.registers])
  }

  /// For XSTATE_BV: the state is not what it was at the start any more.
  mutating func markInUse() { bytes[512] |= 1 }
}

extension CompletionContext {
  /// The x87 state, if the guest may have it.
  func floatingPoint() throws(CompletionStop) -> FloatingPointArea {
    // CR0.EM or TS.
    try require(state.special.cr0 & (1 << 2 | 1 << 3) == 0, else: .deviceNotAvailable)
    return FloatingPointArea(try extendedState())
  }

  func setFloatingPoint(_ area: FloatingPointArea) {
    var area = area
    area.markInUse()
    setExtendedState(area.bytes)
  }
}
