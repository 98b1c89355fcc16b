import DeviceModel

/// Paints planar, CGA and palette modes row by row, and only rows whose bytes lie
/// in a dirty page. Damage is what then turned out to differ.
struct GraphicsRenderer {
  private struct Style: Equatable {
    var geometry: GraphicsGeometry
    var palette: [UInt32]
  }

  private var style: Style?
  private var line = ScanLine()

  /// Forgets what is on the surface.
  mutating func invalidate() { style = nil }

  mutating func render(
    _ geometry: GraphicsGeometry, registers: VGARegisters, memory: VideoMemory,
    pages: DirtyPages, surface: RenderedSurface
  ) -> [Rect] {
    let style = Style(geometry: geometry, palette: geometry.palette(registers))
    let paintsAll = style != self.style
    self.style = style
    guard paintsAll || !pages.isEmpty else { return [] }
    var damage = RowDamage()
    var cursor = RowCursor(geometry)
    let rows = surface.rows(width: geometry.width, height: geometry.lines)
    var inLine: RowCursor.Position?
    for y in 0..<rows {
      let position = cursor.next()
      let count = geometry.byteCount(dots: geometry.width + position.pan) + 4
      let isDirty =
        paintsAll || pages.intersects(address: position.address, count: count, mask: memory.mask)
      guard isDirty, let pixels = surface.row(y, width: geometry.width) else { continue }
      if inLine != position {
        line.decode(
          geometry, palette: style.palette, memory: memory, address: position.address,
          dots: geometry.width + position.pan)
        inLine = position
      }
      if let changed = line.copy(from: position.pan, to: pixels, count: geometry.width) {
        damage.add(y: y, columns: changed)
      }
    }
    return damage.rects
  }
}

/// Walks down the screen as the CRTC's row and address counters do.
private struct RowCursor {
  struct Position: Equatable {
    var address: Int
    var pan: Int
  }

  private let geometry: GraphicsGeometry
  private var y = 0
  private var rowAddress: Int
  private var row: Int
  private var repeated = 0
  private var pan: Int

  init(_ geometry: GraphicsGeometry) {
    self.geometry = geometry
    rowAddress = geometry.start + geometry.bytePan
    row = geometry.presetRow < geometry.rowHeight ? geometry.presetRow : 0
    pan = geometry.pan
  }

  mutating func next() -> Position {
    let position = Position(address: geometry.address(rowAddress, row: row), pan: pan)
    if y == geometry.lineCompare {
      if geometry.panStopsAtSplit { pan = 0 }
      rowAddress = geometry.panStopsAtSplit ? 0 : geometry.bytePan
      row = 0
      repeated = 0
    } else {
      advanceRow()
    }
    y += 1
    return position
  }

  private mutating func advanceRow() {
    repeated += 1
    guard repeated == geometry.scanRepeat else { return }
    repeated = 0
    row += 1
    guard row == geometry.rowHeight else { return }
    row = 0
    rowAddress &+= geometry.stride
  }
}

/// Changed rows, joined where they touch.
private struct RowDamage {
  private(set) var rects: [Rect] = []

  mutating func add(y: Int, columns: Range<Int>) {
    guard let last = rects.last, last.y + last.height == y else {
      rects.append(Rect(x: columns.lowerBound, y: y, width: columns.count, height: 1))
      return
    }
    let left = min(last.x, columns.lowerBound)
    let right = max(last.x + last.width, columns.upperBound)
    rects[rects.count - 1] = Rect(x: left, y: last.y, width: right - left, height: last.height + 1)
  }
}

extension GraphicsGeometry {
  /// The colours that this kind of pixel looks up.
  fileprivate func palette(_ registers: VGARegisters) -> [UInt32] {
    switch pixels {
    case .planar, .interleaved: registers.palette16()
    case .packed, .packedDouble: registers.dac.palette256()
    case .swapped: []
    }
  }
}

extension DirtyPages {
  /// Whether any page of `count` bytes from `address` is dirty, where addresses wrap
  /// at `mask + 1`.
  func intersects(address: Int, count: Int, mask: Int) -> Bool {
    let first = address / Self.pageSize
    let last = (address + max(count, 1) - 1) / Self.pageSize
    return (first...last).contains { contains(page: ($0 * Self.pageSize & mask) / Self.pageSize) }
  }
}
