/// What the monitor says about itself (VESA E-EDID 1.4, one block of 128 bytes).
package struct EDID: Sendable {
  /// A resolution that the block offers, at 60 Hz.
  package struct Mode: Hashable, Codable, Sendable {
    package var width: Int
    package var height: Int

    package init(width: Int, height: Int) {
      self.width = width
      self.height = height
    }

    /// One that a timing can say, whose picture in true colour has room there: smaller in
    /// proportion, and a multiple of eight pixels wide, as the Bochs interface wants it.
    package func fitting(bytes: Int) -> Mode {
      let width = min(max(width, 320), 4088)
      let height = min(max(height, 200), 4095)
      let scale = min(1, (Double(bytes) / Double(width * height * 4)).squareRoot())
      return Mode(
        width: Int(Double(width) * scale) & ~7, height: Int(Double(height) * scale))
    }
  }

  package let preferred: Mode
  package let bytes: [UInt8]

  /// Standard timings can say no more than eight, of the aspect ratios 16:10, 4:3,
  /// 5:4 and 16:9; others are left out.
  package static let standardModes = [
    Mode(width: 1920, height: 1080), Mode(width: 1680, height: 1050),
    Mode(width: 1600, height: 1200), Mode(width: 1440, height: 900),
    Mode(width: 1280, height: 1024), Mode(width: 1280, height: 800),
    Mode(width: 1280, height: 720), Mode(width: 1152, height: 864),
  ]

  package init(
    preferred: Mode = Mode(width: 1024, height: 768), modes: [Mode] = EDID.standardModes,
    monitorName: String = "Carrel"
  ) {
    var block = [UInt8](repeating: 0, count: 128)
    func put(_ values: [UInt8], at offset: Int) {
      for (index, value) in values.enumerated() { block[offset + index] = value }
    }
    put([0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], at: 0)
    put(Self.manufacturer("CRL"), at: 8)
    // Product 1, serial 1, week 1 of 2026, EDID 1.4.
    put([0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 36, 0x01, 0x04], at: 0x0A)
    // Digital, 8 bits a colour, DisplayPort; size at 100 dpi; gamma 2.2; RGB and
    // sRGB, and the preferred timing is the native one.
    let size = (preferred.width * 254 / 10000, preferred.height * 254 / 10000)
    put([0xA5, UInt8(clamping: size.0), UInt8(clamping: size.1), 120, 0x06], at: 0x14)
    // The chromaticity of sRGB.
    put([0xEE, 0x91, 0xA3, 0x54, 0x4C, 0x99, 0x26, 0x0F, 0x50, 0x54], at: 0x19)
    // 640x480 and 800x600 at 60 Hz; 1024x768 at 60 Hz.
    put([0x21, 0x08, 0x00], at: 0x23)
    put(Self.standardTimings(modes), at: 0x26)
    put(Self.detailedTiming(preferred), at: 0x36)
    // Range limits: 50–125 Hz, 30–160 kHz, up to 1200 MHz.
    put([0, 0, 0, 0xFD, 0, 50, 125, 30, 160, 120, 0x01], at: 0x48)
    put([0x0A, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20], at: 0x53)
    put([0, 0, 0, 0xFC, 0] + Self.text(monitorName), at: 0x5A)
    // A dummy descriptor.
    put([0, 0, 0, 0x10, 0], at: 0x6C)
    block[127] = 0 &- block.reduce(0, &+)
    self.preferred = preferred
    bytes = block
  }

  /// Three letters of five bits each.
  private static func manufacturer(_ name: String) -> [UInt8] {
    let packed = name.utf8.reduce(UInt16(0)) { $0 << 5 | UInt16($1 & 0x1F) }
    return [UInt8(packed >> 8), UInt8(truncatingIfNeeded: packed)]
  }

  /// Thirteen bytes: the text, a line feed, spaces.
  private static func text(_ value: String) -> [UInt8] {
    var bytes = Array(value.utf8.prefix(13))
    if bytes.count < 13 { bytes.append(0x0A) }
    return bytes + Array(repeating: 0x20, count: 13 - bytes.count)
  }

  private static func standardTimings(_ modes: [Mode]) -> [UInt8] {
    var bytes: [UInt8] = []
    for mode in modes where bytes.count < 16 {
      guard (256...2288).contains(mode.width), mode.width % 8 == 0 else { continue }
      let ratios = [(16, 10), (4, 3), (5, 4), (16, 9)]
      guard let ratio = ratios.firstIndex(where: { mode.width * $0.1 == mode.height * $0.0 })
      else { continue }
      bytes += [UInt8(mode.width / 8 - 31), UInt8(ratio << 6)]
    }
    return bytes + Array(repeating: 0x01, count: 16 - bytes.count)
  }

  /// An 18-byte descriptor with plain blanking, at 60 Hz.
  private static func detailedTiming(_ mode: Mode) -> [UInt8] {
    let width = min(max(mode.width, 8), 4095)
    let height = min(max(mode.height, 1), 4095)
    let (hBlank, hFront, hSync) = (width * 35 / 100, width * 25 / 100 / 4, width * 3 / 100)
    let (vBlank, vFront, vSync) = (height * 35 / 1000 + 8, 5, 5)
    let clock = min((width + hBlank) * (height + vBlank) * 60 / 10_000, 65535)
    let millimetres = (width * 254 / 1000, height * 254 / 1000)
    func low(_ value: Int) -> UInt8 { UInt8(truncatingIfNeeded: value) }
    func highs(_ first: Int, _ second: Int) -> UInt8 { low((first >> 8) << 4 | second >> 8) }
    return [
      low(clock), low(clock >> 8),
      low(width), low(hBlank), highs(width, hBlank),
      low(height), low(vBlank), highs(height, vBlank),
      low(hFront), low(hSync), low(vFront << 4 | vSync & 0x0F),
      low((hFront >> 8) << 6 | (hSync >> 8) << 4 | (vFront >> 4) << 2 | vSync >> 4),
      low(millimetres.0), low(millimetres.1), highs(millimetres.0, millimetres.1),
      0, 0, 0x18,
    ]
  }
}
