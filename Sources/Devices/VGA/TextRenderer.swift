import DeviceModel

/// Paints text modes cell by cell, and only cells whose look changed.
struct TextRenderer {
  /// Everything besides cells and cursor that a picture depends on. When any of
  /// it changes, every cell is painted again.
  private struct Style: Equatable {
    var geometry: TextGeometry
    var palette: [UInt32]
    var fonts: [Int]
    var underlineRow: Int
    var extendsLineGraphics: Bool
    var blinks: Bool
    var planeEnable: UInt8

    init(_ geometry: TextGeometry, registers: VGARegisters, fonts: [Int]) {
      var geometry = geometry
      // Scrolling moves cells; those that look the same need no paint.
      geometry.startAddress = 0
      geometry.bytePan = 0
      self.geometry = geometry
      self.fonts = fonts
      palette = registers.palette16()
      let mode = registers.attribute[Attribute.modeControl]
      // Only monochrome emulation has underlines.
      underlineRow = mode & 0x02 != 0 ? Int(registers.crtc[CRTC.underlineLocation] & 0x1F) : 32
      extendsLineGraphics = mode & 0x04 != 0
      blinks = mode & 0x08 != 0
      planeEnable = registers.attribute[Attribute.colorPlaneEnable] & 0x0F
    }
  }

  /// Scan lines of one row of cells, cut short by the screen or a split.
  private struct Band {
    var y: Int
    var lineCount: Int
    var firstRow: Int
    var address: Int
    var pan: Int
  }

  private struct Cursor {
    var address: Int
    var rows: Range<Int>
  }

  private var style: Style?
  /// What each cell on the screen was painted from.
  private var painted: [UInt32] = []

  /// Forgets what is on the surface.
  mutating func invalidate() { style = nil }

  mutating func render(
    _ geometry: TextGeometry, registers: VGARegisters, memory: inout VideoMemory,
    pages: DirtyPages, surface: RenderedSurface, now: UInt64
  ) -> [Rect] {
    let fonts = Self.fontAddresses(registers)
    let isFontDirty = memory.fontsChanged || fonts.contains { Self.touches(pages, font: $0) }
    memory.fontsChanged = false
    let style = Style(geometry, registers: registers, fonts: fonts)
    let bands = Self.bands(geometry)
    let cellsPerBand = geometry.columns + 1
    if style != self.style || isFontDirty || painted.count != bands.count * cellsPerBand {
      self.style = style
      painted = Array(repeating: .max, count: bands.count * cellsPerBand)
    }
    let phase = BlinkPhase(now: now)
    let cursor = Self.cursor(registers, geometry: geometry, phase: phase)
    var damage: [Rect] = []
    for (index, band) in bands.enumerated() {
      paint(
        band, painted: index * cellsPerBand, style: style, cursor: cursor, phase: phase,
        memory: memory, surface: surface, damage: &damage)
    }
    return damage
  }

  private mutating func paint(
    _ band: Band, painted first: Int, style: Style, cursor: Cursor, phase: BlinkPhase,
    memory: VideoMemory, surface: RenderedSurface, damage: inout [Rect]
  ) {
    let geometry = style.geometry
    let columns = band.pan > 0 ? geometry.columns + 1 : geometry.columns
    var run: Rect?
    for column in 0..<columns {
      let address = band.address &+ column
      let planes = memory.planes(at: address)
      var key = planes & 0xFFFF
      let isBlinking = style.blinks && key & 0x8000 != 0
      if isBlinking && !phase.showsBlinkingText { key |= 1 << 16 }
      let hasCursor = address & 0xFFFF == cursor.address
      if hasCursor {
        key |= 1 << 17 | UInt32(cursor.rows.lowerBound) << 18 | UInt32(cursor.rows.upperBound) << 24
      }
      guard painted[first + column] != key else { continue }
      painted[first + column] = key
      let glyph = Glyph(key: key, style: style)
      let x = column * geometry.cellWidth - band.pan
      let changed = draw(
        glyph, x: x, band: band, cursorRows: hasCursor ? cursor.rows : 0..<0, style: style,
        memory: memory, surface: surface)
      guard changed else { continue }
      let left = max(x, 0)
      let right = min(x + geometry.cellWidth, geometry.width)
      if let open = run, open.x + open.width == left {
        run?.width = right - open.x
      } else {
        if let run { damage.append(run) }
        run = Rect(x: left, y: band.y, width: right - left, height: band.lineCount)
      }
    }
    if let run { damage.append(run) }
  }

  /// How one cell looks, whatever its place.
  private struct Glyph {
    var font: Int
    var foreground: UInt32
    var background: UInt32
    var fillsNinthDot: Bool
    var isUnderlined: Bool
    var isHidden: Bool

    init(key: UInt32, style: Style) {
      let character = Int(key & 0xFF)
      let attribute = UInt8(truncatingIfNeeded: key >> 8)
      let backgroundIndex = attribute >> 4 & (style.blinks ? 7 : 15) & style.planeEnable
      font = style.fonts[Int(attribute >> 3 & 1)] + character * 32 * 4
      foreground = style.palette[Int(attribute & 0x0F & style.planeEnable)]
      background = style.palette[Int(backgroundIndex)]
      fillsNinthDot = style.extendsLineGraphics && (0xB0...0xDF).contains(character)
      // Blue on black is how MDA software asks for an underline.
      isUnderlined = attribute & 0x77 == 0x01
      isHidden = key & 1 << 16 != 0
    }
  }

  /// - Returns: whether any pixel on the screen changed.
  private func draw(
    _ glyph: Glyph, x: Int, band: Band, cursorRows: Range<Int>, style: Style,
    memory: VideoMemory, surface: RenderedSurface
  ) -> Bool {
    let geometry = style.geometry
    let dots = max(0, -x)..<min(geometry.cellWidth, geometry.width - x)
    var difference: UInt32 = 0
    for line in 0..<band.lineCount {
      let row = band.firstRow + line / geometry.scanRepeat
      var bits = memoryBits(glyph, row: row, style: style, memory: memory)
      if cursorRows.contains(row) { bits = 0xFFFF }
      guard let pixels = surface.row(band.y + line, width: geometry.width) else { break }
      for dot in dots {
        let color = bits << UInt32(dot) & 0x8000 != 0 ? glyph.foreground : glyph.background
        // SAFETY: 0 <= x + dot < width, as `dots` was clipped, and `pixels` has
        // `width` pixels.
        difference |= pixels[x + dot] ^ color
        // SAFETY: as above.
        pixels[x + dot] = color
      }
    }
    return difference != 0
  }

  /// The dots of one glyph row from bit 15 down.
  private func memoryBits(
    _ glyph: Glyph, row: Int, style: Style, memory: VideoMemory
  ) -> UInt32 {
    guard !glyph.isHidden else { return 0 }
    if glyph.isUnderlined && row == style.underlineRow { return 0xFFFF }
    let byte = UInt32(memory[glyph.font + (row & 31) * 4])
    switch style.geometry.cellWidth {
    case 16: return Self.doubled(byte)
    case 9: return byte << 8 | (glyph.fillsNinthDot ? (byte & 1) << 7 : 0)
    default: return byte << 8
    }
  }

  /// Each of eight bits twice.
  private static func doubled(_ byte: UInt32) -> UInt32 {
    var bits = (byte | byte << 4) & 0x0F0F
    bits = (bits | bits << 2) & 0x3333
    bits = (bits | bits << 1) & 0x5555
    return bits | bits << 1
  }
}

extension TextRenderer {
  /// VRAM addresses (in plane 2) of the fonts for attribute bit 3 clear and set.
  private static func fontAddresses(_ registers: VGARegisters) -> [Int] {
    let select = Int(registers.sequencer[Sequencer.characterMapSelect])
    let mapB = (select >> 4 & 1) | (select << 1 & 6)
    let mapA = (select >> 5 & 1) | (select >> 1 & 6)
    return [mapB, mapA].map { $0 * 8192 * 4 + 2 }
  }

  private static func touches(_ pages: DirtyPages, font address: Int) -> Bool {
    let first = address / DirtyPages.pageSize
    return (first..<first + 8192 * 4 / DirtyPages.pageSize).contains { pages.contains(page: $0) }
  }

  private static func cursor(
    _ registers: VGARegisters, geometry: TextGeometry, phase: BlinkPhase
  ) -> Cursor {
    let start = registers.crtc[CRTC.cursorStart]
    let first = Int(start & 0x1F)
    let last = min(Int(registers.crtc[CRTC.cursorEnd] & 0x1F), geometry.cellHeight - 1)
    let isVisible = start & 0x20 == 0 && phase.showsCursor && first <= last
    return Cursor(
      address: isVisible ? registers.cursorLocation : -1,
      rows: isVisible ? first..<last + 1 : 0..<0)
  }

  private static func bands(_ geometry: TextGeometry) -> [Band] {
    var bands: [Band] = []
    var y = 0
    var firstRow = geometry.presetRow < geometry.cellHeight ? geometry.presetRow : 0
    var address = geometry.startAddress + geometry.bytePan
    var pan = geometry.pan
    while y < geometry.lines {
      let full = (geometry.cellHeight - firstRow) * geometry.scanRepeat
      var count = min(full, geometry.lines - y)
      let splits = (y..<y + count).contains(geometry.lineCompare)
      if splits { count = geometry.lineCompare - y + 1 }
      bands.append(Band(y: y, lineCount: count, firstRow: firstRow, address: address, pan: pan))
      y += count
      firstRow = 0
      if splits {
        address = geometry.panStopsAtSplit ? 0 : geometry.bytePan
        if geometry.panStopsAtSplit { pan = 0 }
      } else {
        address += geometry.pitch
      }
    }
    return bands
  }
}
