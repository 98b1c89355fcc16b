/// Soft shadows: a blurred rectangle is the product of two blurred edges.
struct Shadow {
  let reach: Int
  private let edge: [UInt32]

  static let wide = Shadow(reach: 26)

  private init(reach: Int) {
    self.reach = reach
    edge = (0...(2 * reach)).map { step in
      let t = Float(step) / Float(2 * reach)
      return UInt32(t * t * t * (t * (t * 6 - 15) + 10) * 255)
    }
  }

  /// Darkens what is around `frame`, but not inside `hole`.
  func draw(on surface: Surface, around frame: Rectangle, hole: Rectangle, strength: UInt32) {
    let outer = frame.inset(-reach)
    for part in Self.ring(outer, hole) {
      surface.blend(part, .rgb(0x05060F)) { x, y in
        let across = weight(min(x - outer.x, outer.right - 1 - x))
        let down = weight(min(y - outer.y, outer.bottom - 1 - y))
        return across * down / 255 * strength / 255
      }
    }
  }

  /// A hairline around a frame with round corners.
  static func outline(on surface: Surface, around frame: Rectangle, radius: Int, hole: Rectangle) {
    let outer = frame.inset(-1)
    for part in ring(outer, hole) {
      surface.blend(part, .rgb(0x05060F)) { x, y in
        Surface.roundedCoverage(x, y, outer, radius + 1) * 70 / 255
      }
    }
  }

  /// What `outer` has around `hole`.
  private static func ring(_ outer: Rectangle, _ hole: Rectangle) -> [Rectangle] {
    [
      Rectangle(outer.x, outer.y, outer.width, hole.y - outer.y),
      Rectangle(outer.x, hole.bottom, outer.width, outer.bottom - hole.bottom),
      Rectangle(outer.x, hole.y, hole.x - outer.x, hole.height),
      Rectangle(hole.right, hole.y, outer.right - hole.right, hole.height),
    ]
  }

  @inline(__always)
  private func weight(_ distance: Int) -> UInt32 {
    edge[max(0, min(2 * reach, distance))]
  }
}
