/// The palette DAC behind ports 3C6h–3C9h: 256 colours of 3 × 6 bits, or 3 × 8
/// bits when the Bochs VBE asked for it.
struct VGAPalette: Codable, Sendable, Equatable {
  /// Ands every pixel before the look-up (3C6h).
  var mask: UInt8 = 0xFF
  var readIndex: UInt8 = 0
  var writeIndex: UInt8 = 0
  /// Which of red, green and blue comes next.
  private var component: UInt8 = 0
  /// 0 after a write index was set, 3 after a read index was.
  private(set) var state: UInt8 = 0
  private var pending: [UInt8] = [0, 0, 0]
  private var entries = [UInt8](repeating: 0, count: 768)
  var has8Bits = false

  var isWellFormed: Bool { pending.count == 3 && entries.count == 768 && component < 3 }

  mutating func beginRead(at index: UInt8) {
    readIndex = index
    component = 0
    state = 3
  }

  mutating func beginWrite(at index: UInt8) {
    writeIndex = index
    component = 0
    state = 0
  }

  mutating func readData() -> UInt8 {
    let value = entries[Int(readIndex) * 3 + Int(component)]
    component += 1
    if component == 3 {
      component = 0
      readIndex &+= 1
    }
    return has8Bits ? value : value & 0x3F
  }

  /// The entry changes as a whole, with its third byte.
  mutating func writeData(_ value: UInt8) {
    pending[Int(component)] = value
    component += 1
    guard component == 3 else { return }
    component = 0
    let base = Int(writeIndex) * 3
    for part in 0..<3 { entries[base + part] = pending[part] }
    writeIndex &+= 1
  }

  /// The xrgb8888 pixel of palette index `index`, after the mask.
  func color(_ index: UInt8) -> UInt32 {
    let base = Int(index & mask) * 3
    return UInt32(level(entries[base])) << 16 | UInt32(level(entries[base + 1])) << 8
      | UInt32(level(entries[base + 2]))
  }

  func palette256() -> [UInt32] { (0...255).map { color($0) } }

  /// Six bits to eight: the lowest bit fills the new ones, so 63 becomes 255.
  private func level(_ value: UInt8) -> UInt8 {
    guard !has8Bits else { return value }
    let six = value & 0x3F
    return six << 2 | (six & 1) &* 3
  }
}
