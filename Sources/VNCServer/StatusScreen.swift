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
  /// Draws it; plain black where cairo and pango are not installed.
  static func draw(_ status: StatusText, width: Int, height: Int) -> Frame {
    let frame = Frame(width: width, height: height)
    // SAFETY: cairo draws within the sides given, which are the frame's own, and
    // the canvas is closed before the frame goes.
    let pixels = UnsafeMutableRawPointer(frame.pixels).assumingMemoryBound(to: UInt32.self)
    guard let canvas = ccairo_open(pixels, Int32(width), Int32(height)) else { return frame }
    defer { ccairo_close(canvas) }
    paint(status, canvas, Double(width), Double(height))
    return frame
  }

  private static func paint(
    _ status: StatusText, _ canvas: OpaquePointer, _ width: Double, _ height: Double
  ) {
    let unit = max(0.5, min(width / 1024, height / 768))
    ccairo_fill(
      canvas, ccairo_color(red: 0.118, green: 0.125, blue: 0.137),
      ccairo_color(red: 0.071, green: 0.075, blue: 0.086))
    let centre = height * 0.46
    text(
      "CARREL", canvas, size: 13 * unit, weight: 600, spacing: 6 * unit, grey: 0.48,
      x: width / 2, y: centre - 92 * unit, limit: width * 0.8)
    text(
      status.name, canvas, size: 34 * unit, weight: 300, grey: 0.94,
      x: width / 2, y: centre - 36 * unit, limit: width * 0.8)
    text(
      status.text, canvas, size: 15 * unit, weight: 400, grey: 0.66,
      x: width / 2, y: centre + 22 * unit, limit: width * 0.7)
    if let percent = status.percent {
      let part = Double(max(0, min(100, percent))) / 100
      bar(part, canvas, unit, x: width / 2, y: centre + 72 * unit)
    }
  }

  private static func bar(
    _ part: Double, _ canvas: OpaquePointer, _ unit: Double, x: Double, y: Double
  ) {
    let length = 280 * unit
    let left = x - length / 2
    ccairo_line(
      canvas, left, y, length, 4 * unit, ccairo_color(red: 0.2, green: 0.21, blue: 0.23))
    ccairo_line(
      canvas, left, y, length * part, 4 * unit,
      ccairo_color(red: 0.42, green: 0.66, blue: 0.88))
  }

  private static func text(
    _ string: String, _ canvas: OpaquePointer, size: Double, weight: Int32,
    spacing: Double = 0, grey: Double, x: Double, y: Double, limit: Double
  ) {
    string.withCString { text in
      let text = ccairo_text(
        text: text, size: size, weight: weight, spacing: spacing,
        color: ccairo_color(red: grey, green: grey, blue: grey * 1.02))
      ccairo_text(canvas, text, x, y, limit)
    }
  }
}
