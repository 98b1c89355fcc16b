import CCairo
import Display

/// What a status screen says.
struct StatusText: Hashable, Sendable {
  var name = "Carrel"
  var text = "Starting"
  var percent: Int?
}

/// The screen a viewer sees while there is no desktop to show.
enum StatusScreen {
  static func draw(_ status: StatusText, width: Int, height: Int) -> Frame {
    let frame = Frame(width: width, height: height)
    // SAFETY: cairo draws within the sides given, which are the frame's own, and
    // the surface is finished before the frame goes.
    let bytes = UnsafeMutableRawPointer(frame.pixels).assumingMemoryBound(to: UInt8.self)
    guard
      let surface = cairo_image_surface_create_for_data(
        bytes, CAIRO_FORMAT_RGB24, Int32(width), Int32(height), Int32(width * 4))
    else { return frame }
    defer { cairo_surface_destroy(surface) }
    guard let context = cairo_create(surface) else { return frame }
    defer { cairo_destroy(context) }
    paint(status, context, Double(width), Double(height))
    cairo_surface_flush(surface)
    return frame
  }

  private static func paint(
    _ status: StatusText, _ context: OpaquePointer, _ width: Double, _ height: Double
  ) {
    let unit = max(0.5, min(width / 1024, height / 768))
    paintBackground(context, width, height)
    let centre = height * 0.46
    text(
      "CARREL", context, size: 13 * unit, weight: PANGO_WEIGHT_SEMIBOLD, spacing: 6 * unit,
      grey: 0.48, x: width / 2, y: centre - 92 * unit, limit: width * 0.8)
    text(
      status.name, context, size: 34 * unit, weight: PANGO_WEIGHT_LIGHT, spacing: 0,
      grey: 0.94, x: width / 2, y: centre - 36 * unit, limit: width * 0.8)
    text(
      status.text, context, size: 15 * unit, weight: PANGO_WEIGHT_NORMAL, spacing: 0,
      grey: 0.66, x: width / 2, y: centre + 22 * unit, limit: width * 0.7)
    if let percent = status.percent {
      bar(
        Double(max(0, min(100, percent))) / 100, context, unit, x: width / 2,
        y: centre + 72 * unit)
    }
  }

  private static func paintBackground(
    _ context: OpaquePointer, _ width: Double, _ height: Double
  ) {
    guard let gradient = cairo_pattern_create_linear(0, 0, 0, height) else { return }
    cairo_pattern_add_color_stop_rgb(gradient, 0, 0.118, 0.125, 0.137)
    cairo_pattern_add_color_stop_rgb(gradient, 1, 0.071, 0.075, 0.086)
    cairo_set_source(context, gradient)
    cairo_paint(context)
    cairo_pattern_destroy(gradient)
  }

  private static func bar(
    _ part: Double, _ context: OpaquePointer, _ unit: Double, x: Double, y: Double
  ) {
    let length = 280 * unit
    let left = x - length / 2
    cairo_set_line_cap(context, CAIRO_LINE_CAP_ROUND)
    cairo_set_line_width(context, 4 * unit)
    cairo_set_source_rgb(context, 0.2, 0.21, 0.23)
    cairo_move_to(context, left, y)
    cairo_line_to(context, left + length, y)
    cairo_stroke(context)
    cairo_set_source_rgb(context, 0.42, 0.66, 0.88)
    cairo_move_to(context, left, y)
    cairo_line_to(context, left + length * part, y)
    cairo_stroke(context)
  }

  /// Draws `string` centred around (x, y), wrapped at `limit`.
  private static func text(
    _ string: String, _ context: OpaquePointer, size: Double, weight: PangoWeight,
    spacing: Double, grey: Double, x: Double, y: Double, limit: Double
  ) {
    guard let layout = pango_cairo_create_layout(context) else { return }
    defer { g_object_unref(UnsafeMutableRawPointer(layout)) }
    guard let font = pango_font_description_from_string("Sans") else { return }
    defer { pango_font_description_free(font) }
    pango_font_description_set_absolute_size(font, size * Double(PANGO_SCALE))
    pango_font_description_set_weight(font, weight)
    pango_layout_set_font_description(layout, font)
    pango_layout_set_width(layout, Int32(limit * Double(PANGO_SCALE)))
    pango_layout_set_alignment(layout, PANGO_ALIGN_CENTER)
    if spacing > 0, let attributes = pango_attr_list_new() {
      pango_attr_list_insert(
        attributes, pango_attr_letter_spacing_new(Int32(spacing * Double(PANGO_SCALE))))
      pango_layout_set_attributes(layout, attributes)
      pango_attr_list_unref(attributes)
    }
    pango_layout_set_text(layout, string, -1)
    var width: Int32 = 0
    var height: Int32 = 0
    pango_layout_get_pixel_size(layout, &width, &height)
    cairo_set_source_rgb(context, grey, grey, grey * 1.02)
    cairo_move_to(context, x - limit / 2, y - Double(height) / 2)
    pango_cairo_show_layout(context, layout)
  }
}
