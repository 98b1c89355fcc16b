/// A question in the middle of the screen that waits for Enter or Escape.
final class Dialog {
  enum Answer { case confirm, cancel }

  let purpose: Panel.Button
  let frame: Rectangle
  private let surface: Surface
  private let title: String
  private let detail: String
  private let action: String
  /// Set once the question was answered and only the message is left.
  private(set) var isDone = false

  init(_ purpose: Panel.Button, screen: Rectangle) {
    self.purpose = purpose
    frame = Rectangle((screen.width - 380) / 2, (screen.height - 170) / 2, 380, 170)
    surface = Surface(width: frame.width, height: frame.height)
    let isRestart = purpose == .restart
    title = isRestart ? "Restart this desktop?" : "Shut this desktop down?"
    detail = "What is open will be lost."
    action = isRestart ? "Restart" : "Shut Down"
    draw()
  }

  func showProgress() {
    isDone = true
    draw()
  }

  func answer(at position: Point) -> Answer? {
    let inside = position - Point(x: frame.x, y: frame.y)
    if confirmButton.contains(inside) { return .confirm }
    return cancelButton.contains(inside) || !frame.contains(position) ? .cancel : nil
  }

  func compose(on target: Surface) {
    Shadow.wide.draw(
      on: target, around: frame.offset(0, 9), hole: frame.inset(16), strength: 150)
    let corner = Point(x: frame.x, y: frame.y)
    target.shadeOver(frame) { x, y in
      surface[x - corner.x, y - corner.y].scaled(Surface.roundedCoverage(x, y, frame, 16))
    }
  }

  var extent: Rectangle { frame.inset(-Shadow.wide.reach - 9) }

  private var confirmButton: Rectangle { Rectangle(196, 112, 160, 36) }
  private var cancelButton: Rectangle { Rectangle(24, 112, 160, 36) }

  private func draw() {
    let theme = Theme.light
    surface.fill(surface.bounds, theme.header)
    if isDone {
      let message = purpose == .restart ? "Restarting…" : "Shutting down…"
      centered(message, Font.title, surface.bounds, theme.text)
      return
    }
    centered(title, Font.bold, Rectangle(0, 28, frame.width, 20), theme.text)
    centered(detail, Font.body, Rectangle(0, 58, frame.width, 20), theme.faded)
    surface.rounded(cancelButton, radius: 10, theme.button)
    centered("Cancel", Font.bold, cancelButton, theme.text)
    surface.rounded(confirmButton, radius: 10, .rgb(0xE5484D))
    centered(action, Font.bold, confirmButton, .rgb(0xFFFFFF))
  }

  private func centered(_ text: String, _ font: Font, _ area: Rectangle, _ color: Pixel) {
    let letters = text.text
    font.draw(
      letters, on: surface, x: area.x + (area.width - font.width(letters)) / 2,
      y: area.y + (area.height - font.lineHeight) / 2, color)
  }
}
