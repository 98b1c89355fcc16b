/// Colours, gradients, single-pixel patterns and text, to judge a picture by.
final class TestCard: Window {
  private static let bars: [Pixel] = [
    0xFFFFFF, 0xFFFF00, 0x00FFFF, 0x00FF00, 0xFF00FF, 0xFF0000, 0x0000FF, 0x000000,
  ].map { Pixel.rgb($0) }

  init(frame: Rectangle) {
    super.init(title: "Test Card", theme: .dark, frame: frame)
    let area = content.inset(14)
    drawBars(Rectangle(area.x, area.y, area.width, area.height * 3 / 10))
    let rampTop = area.y + area.height * 3 / 10 + 10
    for (index, color) in [0xFF0000, 0x00FF00, 0x0000FF, 0xFFFFFF].enumerated() {
      ramp(Rectangle(area.x, rampTop + index * 22, area.width, 18), .rgb(UInt32(color)))
    }
    let patternTop = rampTop + 98
    drawPatterns(Rectangle(area.x, patternTop, area.width, 56))
    drawText(Rectangle(area.x, patternTop + 66, area.width, area.bottom - patternTop - 66))
    invalidate(content)
  }

  private func drawBars(_ area: Rectangle) {
    let count = Self.bars.count
    for (index, color) in Self.bars.enumerated() {
      let left = area.x + area.width * index / count
      let right = area.x + area.width * (index + 1) / count
      surface.fill(Rectangle(left, area.y, right - left, area.height), color)
    }
  }

  private func ramp(_ area: Rectangle, _ color: Pixel) {
    let last = max(1, area.width - 1)
    surface.shade(area) { x, _ in
      Pixel.rgb(0).mixed(color, UInt32((x - area.x) * 255 / last))
    }
  }

  /// Checkerboard, vertical and horizontal lines, a hue circle's worth of colour.
  private func drawPatterns(_ area: Rectangle) {
    let width = area.width / 4
    let patterns: [(Int, Int) -> Bool] = [
      { x, y in (x + y) & 1 == 0 }, { x, _ in x & 1 == 0 }, { _, y in y & 1 == 0 },
    ]
    for (index, isLit) in patterns.enumerated() {
      let box = Rectangle(area.x + index * width, area.y, width - 8, area.height)
      surface.shade(box) { x, y in .rgb(isLit(x, y) ? 0xFFFFFF : 0x000000) }
    }
    let box = Rectangle(area.x + 3 * width, area.y, area.right - area.x - 3 * width, area.height)
    surface.shade(box) { x, y in
      let hue = Self.hue((x - box.x) * 1535 / max(1, box.width - 1))
      let down = UInt32((y - box.y) * 510 / max(1, box.height - 1))
      if down < 255 { return Pixel.rgb(0xFFFFFF).mixed(hue, down) }
      return hue.mixed(.rgb(0), down - 255)
    }
  }

  private static func hue(_ position: Int) -> Pixel {
    let part = UInt32(position & 255)
    switch position >> 8 {
    case 0: return .rgb(0xFF0000 | part << 8)
    case 1: return .rgb(0x00FF00 | (255 - part) << 16)
    case 2: return .rgb(0x00FF00 | part)
    case 3: return .rgb(0x0000FF | (255 - part) << 8)
    case 4: return .rgb(0x0000FF | part << 16)
    default: return .rgb(0xFF0000 | (255 - part))
    }
  }

  private func drawText(_ area: Rectangle) {
    let sample = "Hamburgefonstiv ÄÖÜ äöüß éèê çñ 0123456789"
    surface.clipped(to: area) {
      var y = area.y
      for font in [Font.body, Font.mono, Font.small] {
        font.draw(sample, on: surface, x: area.x, y: y, theme.text)
        y += font.lineHeight + 2
      }
    }
  }
}
