import Cairo

/// Renders one size of a font to 8-bit coverage masks.
///
/// Layout (little-endian): i16 ascent, i16 line height, u16 glyph count, u16 0, then
/// for each glyph u16 code, i8 left, i8 top, u8 width, u8 height, u8 advance, u8 0,
/// u32 offset of its mask from the start of the font; then the masks, row by row.
struct FontRenderer {
  let family: String
  let isBold: Bool
  let size: Double

  /// Latin-1 and Latin Extended-A in order, then what the desktop's texts use.
  static let codes: [UInt32] =
    Array(0x20...0x17F) + [
      0x20AC, 0x2013, 0x2014, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2026, 0x1E9E,
    ]
    + [0x2190, 0x2191, 0x2192, 0x2193, 0x2500, 0x2588, 0x25CF, 0x2713]

  func render() -> [UInt8] {
    let probe = cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1)
    let context = cairo_create(probe)
    defer {
      cairo_destroy(context)
      cairo_surface_destroy(probe)
    }
    select(context)
    var metrics = cairo_font_extents_t()
    cairo_font_extents(context, &metrics)

    var header = Bytes()
    header.append(Int16(metrics.ascent.rounded()))
    header.append(Int16(metrics.height.rounded(.up)))
    header.append(UInt16(Self.codes.count))
    header.append(UInt16(0))
    var masks = Bytes()
    let masksStart = header.values.count + Self.codes.count * 12
    for code in Self.codes {
      let glyph = render(code, context)
      header.append(UInt16(code))
      for small in [glyph.left, glyph.top] { header.append(Int8(clamping: small)) }
      for small in [glyph.width, glyph.height, glyph.advance, 0] { header.append(UInt8(small)) }
      header.append(UInt32(masksStart + masks.values.count))
      masks.values += glyph.mask
    }
    return header.values + masks.values
  }

  private struct Glyph {
    var left = 0
    var top = 0
    var width = 0
    var height = 0
    var advance = 0
    var mask: [UInt8] = []
  }

  private func select(_ context: OpaquePointer?) {
    cairo_select_font_face(
      context, family, CAIRO_FONT_SLANT_NORMAL,
      isBold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL)
    cairo_set_font_size(context, size)
    let options = cairo_font_options_create()
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY)
    cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_SLIGHT)
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_ON)
    cairo_set_font_options(context, options)
    cairo_font_options_destroy(options)
  }

  private func render(_ code: UInt32, _ probe: OpaquePointer?) -> Glyph {
    guard let scalar = Unicode.Scalar(code), !(0x7F...0x9F).contains(code) else { return Glyph() }
    let text = String(Character(scalar))
    var extents = cairo_text_extents_t()
    cairo_text_extents(probe, text, &extents)
    var glyph = Glyph()
    glyph.advance = Int(extents.x_advance.rounded())
    guard extents.width > 0, extents.height > 0 else { return glyph }
    glyph.left = Int(extents.x_bearing.rounded(.down)) - 1
    glyph.top = Int(extents.y_bearing.rounded(.down)) - 1
    glyph.width = Int(extents.width.rounded(.up)) + 3
    glyph.height = Int(extents.height.rounded(.up)) + 3
    let canvas = Canvas(width: glyph.width, height: glyph.height, format: CAIRO_FORMAT_A8)
    select(canvas.context)
    cairo_move_to(canvas.context, Double(-glyph.left), Double(-glyph.top))
    cairo_show_text(canvas.context, text)
    glyph.mask = canvas.bytes(perPixel: 1)
    return glyph
  }
}
