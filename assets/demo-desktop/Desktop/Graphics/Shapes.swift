extension Surface {
  /// An anti-aliased disc; center and radius in 1/16 pixel.
  func disc(x: Int, y: Int, radius: Int, _ color: Pixel) {
    let box = Rectangle(
      (x - radius) / 16 - 1, (y - radius) / 16 - 1, radius / 8 + 4, radius / 8 + 4)
    blend(box, color) { px, py in
      let dx = Float(px * 16 + 8 - x)
      let dy = Float(py * 16 + 8 - y)
      let distance = (dx * dx + dy * dy).squareRoot()
      return Self.coverage((Float(radius) - distance) / 16)
    }
  }

  /// A filled rectangle with round corners, anti-aliased.
  func rounded(_ area: Rectangle, radius: Int, _ color: Pixel, alpha: UInt32 = 255) {
    blend(area, color) { x, y in
      Self.roundedCoverage(x, y, area, radius) * alpha / 255
    }
  }

  /// Coverage (0…255) of the pixel at (x, y) by a rectangle with round corners.
  @inline(__always)
  static func roundedCoverage(_ x: Int, _ y: Int, _ area: Rectangle, _ radius: Int) -> UInt32 {
    let dx = max(area.x + radius - 1 - x, x - area.right + radius, -1) + 1
    let dy = max(area.y + radius - 1 - y, y - area.bottom + radius, -1) + 1
    if dx <= 0 || dy <= 0 { return 255 }
    let fx = Float(dx) - 0.5
    let fy = Float(dy) - 0.5
    return coverage(Float(radius) - (fx * fx + fy * fy).squareRoot())
  }

  /// A line of `width` sixteenths, with round ends; coordinates in pixels.
  func line(from start: Point, to end: Point, width: Int, _ color: Pixel) {
    let margin = width / 16 + 2
    let box = Rectangle(
      min(start.x, end.x) - margin, min(start.y, end.y) - margin,
      abs(end.x - start.x) + 2 * margin, abs(end.y - start.y) + 2 * margin)
    let vx = Float(end.x - start.x)
    let vy = Float(end.y - start.y)
    let length = vx * vx + vy * vy
    blend(box, color) { px, py in
      let dx = Float(px - start.x)
      let dy = Float(py - start.y)
      let along = length == 0 ? 0 : max(0, min(1, (dx * vx + dy * vy) / length))
      let ex = dx - along * vx
      let ey = dy - along * vy
      return Self.coverage(Float(width) / 32 - (ex * ex + ey * ey).squareRoot())
    }
  }

  /// A vertical gradient between two opaque colours.
  func gradient(_ area: Rectangle, _ top: Pixel, _ bottom: Pixel) {
    let steps = max(1, area.height - 1)
    shade(area) { _, y in top.mixed(bottom, UInt32((y - area.y) * 255 / steps)) }
  }

  @inline(__always)
  private static func coverage(_ distance: Float) -> UInt32 {
    UInt32(max(0, min(1, distance + 0.5)) * 255)
  }
}
