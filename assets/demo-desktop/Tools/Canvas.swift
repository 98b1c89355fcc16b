import Cairo

/// Little-endian output.
struct Bytes {
  var values: [UInt8] = []

  mutating func append<T: FixedWidthInteger>(_ value: T) {
    for shift in stride(from: 0, to: T.bitWidth, by: 8) {
      values.append(UInt8(truncatingIfNeeded: value >> T(shift)))
    }
  }
}

/// A cairo image surface and its context.
final class Canvas {
  let surface: OpaquePointer?
  let context: OpaquePointer?
  let width: Int
  let height: Int

  init(width: Int, height: Int, format: cairo_format_t = CAIRO_FORMAT_ARGB32) {
    self.width = width
    self.height = height
    surface = cairo_image_surface_create(format, Int32(width), Int32(height))
    context = cairo_create(surface)
  }

  deinit {
    cairo_destroy(context)
    cairo_surface_destroy(surface)
  }

  /// The pixels, without the padding cairo keeps at the end of rows.
  func bytes(perPixel: Int) -> [UInt8] {
    cairo_surface_flush(surface)
    guard let data = cairo_image_surface_get_data(surface) else { return [] }
    let stride = Int(cairo_image_surface_get_stride(surface))
    var result: [UInt8] = []
    for row in 0..<height {
      // SAFETY: cairo allocated height rows of stride bytes, and the surface lives.
      result += UnsafeBufferPointer(start: data + row * stride, count: width * perPixel)
    }
    return result
  }

  /// An image: u16 width, u16 height, then premultiplied ARGB.
  func image() -> [UInt8] {
    var output = Bytes()
    output.append(UInt16(width))
    output.append(UInt16(height))
    return output.values + bytes(perPixel: 4)
  }

  func setColor(_ rgb: UInt32, alpha: Double = 1) {
    cairo_set_source_rgba(
      context, Double(rgb >> 16 & 255) / 255, Double(rgb >> 8 & 255) / 255,
      Double(rgb & 255) / 255, alpha)
  }

  /// Fills the current path from `top` at y0 to `bottom` at y1.
  func fillGradient(_ top: UInt32, _ bottom: UInt32, from y0: Double, to y1: Double) {
    let pattern = cairo_pattern_create_linear(0, y0, 0, y1)
    for (offset, rgb) in [(0.0, top), (1.0, bottom)] {
      cairo_pattern_add_color_stop_rgb(
        pattern, offset, Double(rgb >> 16 & 255) / 255, Double(rgb >> 8 & 255) / 255,
        Double(rgb & 255) / 255)
    }
    cairo_set_source(context, pattern)
    cairo_fill(context)
    cairo_pattern_destroy(pattern)
  }

  func roundedRectangle(_ x: Double, _ y: Double, _ w: Double, _ h: Double, radius r: Double) {
    cairo_new_sub_path(context)
    cairo_arc(context, x + w - r, y + r, r, -.pi / 2, 0)
    cairo_arc(context, x + w - r, y + h - r, r, 0, .pi / 2)
    cairo_arc(context, x + r, y + h - r, r, .pi / 2, .pi)
    cairo_arc(context, x + r, y + r, r, .pi, .pi * 1.5)
    cairo_close_path(context)
  }

  func polyline(_ points: [(Double, Double)]) {
    for (index, point) in points.enumerated() {
      if index == 0 {
        cairo_move_to(context, point.0, point.1)
      } else {
        cairo_line_to(context, point.0, point.1)
      }
    }
  }

  func stroke(_ rgb: UInt32, width: Double, alpha: Double = 1) {
    setColor(rgb, alpha: alpha)
    cairo_set_line_width(context, width)
    cairo_set_line_cap(context, CAIRO_LINE_CAP_ROUND)
    cairo_set_line_join(context, CAIRO_LINE_JOIN_ROUND)
    cairo_stroke(context)
  }

  func fill(_ rgb: UInt32, alpha: Double = 1) {
    setColor(rgb, alpha: alpha)
    cairo_fill(context)
  }

  func disc(_ x: Double, _ y: Double, _ radius: Double, _ rgb: UInt32) {
    cairo_new_sub_path(context)
    cairo_arc(context, x, y, radius, 0, .pi * 2)
    fill(rgb)
  }
}
