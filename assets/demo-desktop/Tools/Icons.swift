import Cairo

/// The desktop's pictures, drawn as vectors.
enum Icons {
  static func all() -> [[UInt8]] {
    [pointer(), editor(), paint(), terminal(), testCard(), power(), restart(), logo()].map {
      $0.image()
    }
  }

  /// An arrow with its tip at (3, 3) and a soft shadow.
  private static func pointer() -> Canvas {
    let canvas = Canvas(width: 24, height: 30)
    let arrow = [
      (0.0, 0.0), (0, 17.2), (4.1, 13.4), (6.9, 19.8), (9.9, 18.5), (7.2, 12.3), (12.6, 12.0),
    ]
    for (spread, alpha) in [(4.5, 0.05), (3.0, 0.08), (1.5, 0.10)] {
      canvas.polyline(arrow.map { ($0.0 + 3.5, $0.1 + 4.5) })
      cairo_close_path(canvas.context)
      canvas.stroke(0x000000, width: spread, alpha: alpha)
    }
    canvas.polyline(arrow.map { ($0.0 + 3.5, $0.1 + 3.5) })
    cairo_close_path(canvas.context)
    let outline = cairo_copy_path(canvas.context)
    canvas.stroke(0xFFFFFF, width: 2.2)
    cairo_append_path(canvas.context, outline)
    canvas.fill(0x16181D)
    cairo_path_destroy(outline)
    return canvas
  }

  /// A rounded tile, 48 pixels square in a margin of 2.
  private static func tile(_ top: UInt32, _ bottom: UInt32) -> Canvas {
    let canvas = Canvas(width: 52, height: 52)
    canvas.roundedRectangle(2, 3, 48, 48, radius: 12)
    canvas.fill(0x000000, alpha: 0.18)
    canvas.roundedRectangle(2, 2, 48, 48, radius: 12)
    canvas.fillGradient(top, bottom, from: 2, to: 50)
    canvas.roundedRectangle(2.5, 2.5, 47, 47, radius: 11.5)
    canvas.stroke(0xFFFFFF, width: 1, alpha: 0.20)
    return canvas
  }

  private static func editor() -> Canvas {
    let canvas = tile(0x63B3FF, 0x2F6FE4)
    canvas.roundedRectangle(13, 10, 26, 32, radius: 3)
    canvas.fill(0xFFFFFF)
    for (row, length) in [17.0, 18, 13, 17, 9].enumerated() {
      canvas.polyline([(17.5, 17 + Double(row) * 5), (17.5 + length - 1, 17 + Double(row) * 5)])
      canvas.stroke(0x9DB4D3, width: 1.8)
    }
    canvas.polyline([(42, 22), (31, 36), (29, 41), (33.7, 38.4), (44.6, 24.2)])
    cairo_close_path(canvas.context)
    canvas.fillGradient(0xFFC95C, 0xF59A23, from: 22, to: 41)
    canvas.polyline([(31, 36), (29, 41), (33.7, 38.4)])
    cairo_close_path(canvas.context)
    canvas.fill(0x39424E)
    return canvas
  }

  private static func paint() -> Canvas {
    let canvas = tile(0xFF9A76, 0xE5487F)
    cairo_save(canvas.context)
    cairo_translate(canvas.context, 26, 26.5)
    cairo_scale(canvas.context, 16.5, 14)
    cairo_new_sub_path(canvas.context)
    cairo_arc(canvas.context, 0, 0, 1, 0.9, 0.12 + .pi * 2)
    cairo_curve_to(canvas.context, 0.9, 0.5, 0.2, 0.1, 0.22, 0.55)
    cairo_curve_to(canvas.context, 0.24, 0.8, 0.5, 0.9, 0.62, 0.78)
    cairo_close_path(canvas.context)
    cairo_restore(canvas.context)
    canvas.fill(0xFFF6EA)
    canvas.disc(17, 25, 3, 0x3D7BEA)
    canvas.disc(22.5, 18.5, 3, 0x2FB673)
    canvas.disc(31, 18.2, 3, 0xF6B42C)
    canvas.disc(36.5, 23.5, 2.8, 0xE9463F)
    canvas.disc(20, 33, 3, 0x8A4FD3)
    return canvas
  }

  private static func terminal() -> Canvas {
    let canvas = tile(0x434B59, 0x20242C)
    canvas.polyline([(14, 19), (21.5, 25.5), (14, 32)])
    canvas.stroke(0x7CE2A8, width: 3.4)
    canvas.polyline([(26, 33), (37, 33)])
    canvas.stroke(0xF2F4F8, width: 3.4)
    return canvas
  }

  private static func testCard() -> Canvas {
    let canvas = tile(0xF5F6FA, 0xC9D0DD)
    canvas.roundedRectangle(10, 12, 32, 24, radius: 3)
    canvas.fill(0x20242C)
    cairo_save(canvas.context)
    canvas.roundedRectangle(12, 14, 28, 20, radius: 1.5)
    cairo_clip(canvas.context)
    let bars: [UInt32] = [0xF4F4F4, 0xF2D541, 0x4CC9E0, 0x50C36B, 0xC65BD0, 0xE4483F, 0x3D66E8]
    for (index, color) in bars.enumerated() {
      cairo_rectangle(canvas.context, 12 + Double(index) * 4, 14, 4.2, 20)
      canvas.fill(color)
    }
    cairo_restore(canvas.context)
    canvas.polyline([(26, 37), (26, 41)])
    canvas.stroke(0x20242C, width: 4)
    canvas.polyline([(19, 41.5), (33, 41.5)])
    canvas.stroke(0x20242C, width: 2.6)
    return canvas
  }

  private static func power() -> Canvas {
    let canvas = Canvas(width: 18, height: 18)
    cairo_arc(canvas.context, 9, 9.6, 5.6, -.pi / 2 + 0.65, .pi * 1.5 - 0.65)
    canvas.stroke(0xFFFFFF, width: 1.8)
    canvas.polyline([(9, 2.6), (9, 8.6)])
    canvas.stroke(0xFFFFFF, width: 1.8)
    return canvas
  }

  private static func restart() -> Canvas {
    let canvas = Canvas(width: 18, height: 18)
    cairo_arc(canvas.context, 9, 9.4, 5.6, -0.55, .pi * 1.5)
    canvas.stroke(0xFFFFFF, width: 1.8)
    canvas.polyline([(8.4, 0.8), (12.6, 3.8), (8.4, 6.8)])
    cairo_close_path(canvas.context)
    canvas.fill(0xFFFFFF)
    return canvas
  }

  /// A reading carrel seen from the front: a desk between two walls, a lit page.
  private static func logo() -> Canvas {
    let canvas = Canvas(width: 20, height: 20)
    canvas.polyline([(3, 17), (3, 6), (10, 2.5), (17, 6), (17, 17)])
    canvas.stroke(0xFFFFFF, width: 1.8)
    canvas.polyline([(3, 12.5), (17, 12.5)])
    canvas.stroke(0xFFFFFF, width: 1.8)
    canvas.roundedRectangle(7.2, 7.2, 5.6, 3.6, radius: 0.8)
    canvas.fill(0xFFC66B)
    return canvas
  }
}
