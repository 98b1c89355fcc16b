/// A glyph atlas: coverage masks of one font at one size.
struct Font {
  private struct Glyph {
    var left = 0
    var top = 0
    var width = 0
    var height = 0
    var advance = 0
    var mask = 0
  }

  let ascent: Int
  let lineHeight: Int
  private var glyphs: [Glyph] = []
  private var extra: [UInt16] = []
  private static let firstCode = 0x20
  private static let rangeCount = 0x160

  static let body = Font(0)
  static let bold = Font(1)
  static let small = Font(2)
  static let mono = Font(3)
  static let title = Font(4)

  private init(_ index: Int) {
    let start = Art.long(12 + index * 4)
    ascent = Art.short(start)
    lineHeight = Art.short(start + 2)
    for glyph in 0..<Art.short(start + 4) {
      let entry = start + 8 + glyph * 12
      if glyph >= Self.rangeCount { extra.append(UInt16(Art.short(entry))) }
      glyphs.append(
        Glyph(
          left: Int(Int8(bitPattern: Art.byte(entry + 2))),
          top: Int(Int8(bitPattern: Art.byte(entry + 3))), width: Int(Art.byte(entry + 4)),
          height: Int(Art.byte(entry + 5)), advance: Int(Art.byte(entry + 6)),
          mask: start + Art.long(entry + 8)))
    }
  }

  /// The width of a cell of the monospaced font.
  var cellWidth: Int { glyph(0x4D).advance }

  private func glyph(_ code: UInt16) -> Glyph {
    let index = Int(code) - Self.firstCode
    if index >= 0, index < Self.rangeCount { return glyphs[index] }
    if let other = extra.firstIndex(of: code) { return glyphs[Self.rangeCount + other] }
    return glyphs[0x3F - Self.firstCode]
  }

  func width(_ text: Text) -> Int { text.reduce(0) { $0 + glyph($1).advance } }

  /// Draws a line whose cell starts at (x, y) and returns where it ends.
  @discardableResult
  func draw(_ text: Text, on surface: Surface, x: Int, y: Int, _ color: Pixel) -> Int {
    var pen = x
    for code in text {
      let glyph = glyph(code)
      let box = Rectangle(pen + glyph.left, y + ascent + glyph.top, glyph.width, glyph.height)
      surface.blend(box, color) { px, py in
        UInt32(Art.byte(glyph.mask + (py - box.y) * glyph.width + px - box.x))
      }
      pen += glyph.advance
    }
    return pen
  }

  @discardableResult
  func draw(_ text: String, on surface: Surface, x: Int, y: Int, _ color: Pixel) -> Int {
    draw(text.text, on: surface, x: x, y: y, color)
  }

  /// As much of `text` as fits in `width`, with an ellipsis if some is left out.
  func fitting(_ text: Text, width limit: Int) -> Text {
    guard width(text) > limit else { return text }
    var shorter = text
    while !shorter.isEmpty, width(shorter) + glyph(0x2026).advance > limit {
      shorter.removeLast()
    }
    return shorter + [0x2026]
  }
}
