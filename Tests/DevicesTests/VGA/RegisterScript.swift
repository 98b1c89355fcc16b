/// What software does to a display adapter, as data: the same script runs on QEMU's
/// adapter and on ours.
struct RegisterScript {
  enum Step {
    case out8(UInt16, UInt8)
    case out16(UInt16, UInt16)
    /// A read whose value must be the same on both.
    case in8(UInt16)
    case in16(UInt16)
    /// A read for its side effect; what it returns depends on time.
    case touch(UInt16)
    /// Bytes through the legacy window, ascending.
    case write(UInt32, [UInt8])
    case read(UInt32, Int)
    /// Bytes through the linear frame buffer (BAR 0).
    case videoMemory(Int, [UInt8])
    /// Registers in BAR 2, by width.
    case mmioWrite(Int, width: Int, UInt32)
    case mmioRead(Int, width: Int)
    /// Has the adapter bring its picture up to date, as a viewer would.
    case refresh
  }

  var steps: [Step] = []

  mutating func out8(_ port: UInt16, _ value: UInt8) { steps.append(.out8(port, value)) }

  mutating func indexed(_ port: UInt16, _ index: UInt8, _ value: UInt8) {
    steps.append(.out16(port, UInt16(value) << 8 | UInt16(index)))
  }

  mutating func sequencer(_ index: UInt8, _ value: UInt8) { indexed(0x3C4, index, value) }
  mutating func crtc(_ index: UInt8, _ value: UInt8) { indexed(0x3D4, index, value) }
  mutating func graphics(_ index: UInt8, _ value: UInt8) { indexed(0x3CE, index, value) }

  mutating func attribute(_ index: UInt8, _ value: UInt8, shows: Bool = true) {
    steps += [.touch(0x3BA), .touch(0x3DA)]
    out8(0x3C0, index)
    out8(0x3C0, value)
    if shows { out8(0x3C0, 0x20) }
  }

  mutating func dac(from index: UInt8, _ values: [UInt8]) {
    out8(0x3C8, index)
    for value in values { out8(0x3C9, value) }
  }

  mutating func vbe(_ index: UInt16, _ value: UInt16) {
    steps.append(.out16(0x1CE, index))
    steps.append(.out16(0x1CF, value))
  }

  mutating func write(_ address: UInt32, _ bytes: [UInt8]) {
    steps.append(.write(address, bytes))
  }

  /// A mode as VGA BIOS tables describe it.
  mutating func set(_ mode: StandardMode) {
    out8(0x3C2, mode.miscellaneous)
    sequencer(0, 0x01)
    for (index, value) in mode.sequencer.enumerated() { sequencer(UInt8(index + 1), value) }
    sequencer(0, 0x03)
    let address: UInt16 = mode.miscellaneous & 1 != 0 ? 0x3D4 : 0x3B4
    indexed(address, 0x11, 0x00)
    for (index, value) in mode.crtc.enumerated() { indexed(address, UInt8(index), value) }
    for (index, value) in mode.graphics.enumerated() { graphics(UInt8(index), value) }
    steps.append(.touch(address + 6))
    for (index, value) in mode.attribute.enumerated() {
      out8(0x3C0, UInt8(index))
      out8(0x3C0, value)
    }
    out8(0x3C0, 0x20)
    out8(0x3C6, 0xFF)
  }

  /// 256 different colours, with all levels of each component used.
  mutating func setColors() {
    let values = (0..<256).flatMap { (index: Int) -> [UInt8] in
      let levels = [index, index * 5 + 9, index / 4 + index * 3]
      return levels.map { UInt8($0 & 63) }
    }
    dac(from: 0, values)
  }

  /// Glyphs of our own into plane 2 at `map` (0 … 7), leaving text mode addressing
  /// as it was found.
  mutating func loadFont(map: Int = 0, height: Int, seed: UInt8 = 0) {
    sequencer(0x02, 0x04)
    sequencer(0x04, 0x06)
    graphics(0x04, 0x02)
    graphics(0x05, 0x00)
    graphics(0x06, 0x04)
    // Bit 0 of the map's number is bit 14 of the address, as in the hardware.
    let base = 0xA0000 + UInt32((map & 3) * 0x4000 + (map >> 2) * 0x2000)
    for character in 0..<256 {
      let glyph = (0..<height).map { (row: Int) -> UInt8 in
        let dots = UInt8(truncatingIfNeeded: character * 37 + row * row * 11)
        return dots ^ UInt8(row) << 3 ^ seed
      }
      write(base + UInt32(character * 32), glyph)
    }
    sequencer(0x02, 0x03)
    sequencer(0x04, 0x02)
    graphics(0x04, 0x00)
    graphics(0x05, 0x10)
    graphics(0x06, 0x0E)
  }

  /// Noise that is the same in every run.
  static func noise(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    var bytes = [UInt8](repeating: 0, count: count)
    var index = 0
    while index < count {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      bytes[index] = UInt8(truncatingIfNeeded: state >> 24)
      index += 1
    }
    return bytes
  }
}

/// A row of the VGA BIOS's parameter table (IBM VGA technical reference, section 4).
struct StandardMode {
  var miscellaneous: UInt8
  /// Registers 1 … 4.
  var sequencer: [UInt8]
  /// Registers 0 … 24.
  var crtc: [UInt8]
  /// Registers 0 … 8.
  var graphics: [UInt8]
  /// Registers 0 … 20.
  var attribute: [UInt8]

  private static let colors: [UInt8] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F,
  ]

  static let text80x25 = StandardMode(
    miscellaneous: 0x67, sequencer: [0x00, 0x03, 0x00, 0x02],
    crtc: [
      0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0, 0, 0, 0,
      0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
    ],
    graphics: [0, 0, 0, 0, 0, 0x10, 0x0E, 0x00, 0xFF],
    attribute: colors + [0x0C, 0x00, 0x0F, 0x08, 0x00])

  static let text40x25 = StandardMode(
    miscellaneous: 0x67, sequencer: [0x08, 0x03, 0x00, 0x02],
    crtc: [
      0x2D, 0x27, 0x28, 0x90, 0x2B, 0xA0, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0, 0, 0, 0,
      0x9C, 0x8E, 0x8F, 0x14, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
    ],
    graphics: text80x25.graphics, attribute: text80x25.attribute)

  static let monochromeText = StandardMode(
    miscellaneous: 0x66, sequencer: [0x00, 0x03, 0x00, 0x02],
    crtc: [
      0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0, 0, 0, 0,
      0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
    ],
    graphics: [0, 0, 0, 0, 0, 0x10, 0x0A, 0x00, 0xFF],
    attribute: [0, 8, 8, 8, 8, 8, 8, 8, 0x10, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18]
      + [0x06, 0x00, 0x0F, 0x08, 0x00])

  static let planar640x480 = StandardMode(
    miscellaneous: 0xE3, sequencer: [0x01, 0x0F, 0x00, 0x06],
    crtc: [
      0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0x0B, 0x3E, 0x00, 0x40, 0, 0, 0, 0, 0, 0,
      0xEA, 0x8C, 0xDF, 0x28, 0x00, 0xE7, 0x04, 0xE3, 0xFF,
    ],
    graphics: [0, 0, 0, 0, 0, 0x00, 0x05, 0x0F, 0xFF],
    attribute: colors + [0x01, 0x00, 0x0F, 0x00, 0x00])

  static let planar320x200 = StandardMode(
    miscellaneous: 0x63, sequencer: [0x09, 0x0F, 0x00, 0x06],
    crtc: [
      0x2D, 0x27, 0x28, 0x90, 0x2B, 0x80, 0xBF, 0x1F, 0x00, 0xC0, 0, 0, 0, 0, 0, 0,
      0x9C, 0x8E, 0x8F, 0x14, 0x00, 0x96, 0xB9, 0xE3, 0xFF,
    ],
    graphics: planar640x480.graphics, attribute: planar640x480.attribute)

  static let packed320x200 = StandardMode(
    miscellaneous: 0x63, sequencer: [0x01, 0x0F, 0x00, 0x0E],
    crtc: [
      0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF, 0x1F, 0x00, 0x41, 0, 0, 0, 0, 0, 0,
      0x9C, 0x8E, 0x8F, 0x28, 0x40, 0x96, 0xB9, 0xA3, 0xFF,
    ],
    graphics: [0, 0, 0, 0, 0, 0x40, 0x05, 0x0F, 0xFF],
    attribute: (0..<16).map { UInt8($0) } + [0x41, 0x00, 0x0F, 0x00, 0x00])

  /// Mode X: the 256 colours of mode 13h, unchained, 320x240.
  static let unchained320x240: StandardMode = {
    var mode = packed320x200
    mode.miscellaneous = 0xE3
    mode.sequencer[3] = 0x06
    for (index, value): (Int, UInt8) in [
      (0x06, 0x0D), (0x07, 0x3E), (0x09, 0x41), (0x10, 0xEA), (0x11, 0xAC), (0x12, 0xDF),
      (0x14, 0x00), (0x15, 0xE7), (0x16, 0x06), (0x17, 0xE3),
    ] {
      mode.crtc[index] = value
    }
    return mode
  }()

  static let cga320x200 = StandardMode(
    miscellaneous: 0x63, sequencer: [0x09, 0x03, 0x00, 0x02],
    crtc: [
      0x2D, 0x27, 0x28, 0x90, 0x2B, 0x80, 0xBF, 0x1F, 0x00, 0xC1, 0, 0, 0, 0, 0, 0,
      0x9C, 0x8E, 0x8F, 0x14, 0x00, 0x96, 0xB9, 0xA2, 0xFF,
    ],
    graphics: [0, 0, 0, 0, 0, 0x30, 0x0F, 0x00, 0xFF],
    attribute: [0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07] + (0x10...0x17).map { UInt8($0) }
      + [0x01, 0x00, 0x03, 0x00, 0x00])

  static let cga640x200 = StandardMode(
    miscellaneous: 0x63, sequencer: [0x01, 0x01, 0x00, 0x06],
    crtc: [
      0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF, 0x1F, 0x00, 0xC1, 0, 0, 0, 0, 0, 0,
      0x9C, 0x8E, 0x8F, 0x28, 0x00, 0x96, 0xB9, 0xC2, 0xFF,
    ],
    graphics: [0, 0, 0, 0, 0, 0x00, 0x0D, 0x00, 0xFF],
    attribute: [0x00] + Array(repeating: 0x17, count: 15) + [0x01, 0x00, 0x01, 0x00, 0x00])
}
