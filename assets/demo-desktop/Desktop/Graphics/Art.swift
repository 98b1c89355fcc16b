import CMachine

/// The glyph atlases and pictures that the build drew (Tools/main.swift has the layout).
enum Art {
  static func byte(_ offset: Int) -> UInt8 { base[offset] }

  static func short(_ offset: Int) -> Int { Int(base[offset]) | Int(base[offset + 1]) << 8 }

  static func long(_ offset: Int) -> Int { short(offset) | short(offset + 2) << 16 }

  // SAFETY: boot.S includes the file, whose offsets the same build wrote.
  private static var base: UnsafePointer<UInt8> { art_address() }
}

enum Picture: Int {
  case pointer, editor, paint, terminal, testCard, power, restart, logo

  func load() -> Surface {
    let start = Art.long(12 + (Art.long(4) + rawValue) * 4)
    let surface = Surface(width: Art.short(start), height: Art.short(start + 2))
    let width = surface.width
    surface.shade(surface.bounds) { x, y in
      Pixel(Art.long(start + 4 + (y * width + x) * 4))
    }
    return surface
  }
}
