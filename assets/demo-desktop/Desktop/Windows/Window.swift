/// How a window's frame is coloured.
struct Theme {
  let header: Pixel
  let body: Pixel
  let text: Pixel
  let faded: Pixel
  let button: Pixel

  static let light = Theme(
    header: .rgb(0xF4F4F7), body: .rgb(0xFFFFFF), text: .rgb(0x24262D), faded: .rgb(0x9598A3),
    button: .rgb(0xE2E3E9))
  static let dark = Theme(
    header: .rgb(0x2A2D38), body: .rgb(0x1B1D26), text: .rgb(0xE9EAF0), faded: .rgb(0x868A99),
    button: .rgb(0x404453))
}

/// What the pointer did inside a window, in the window's own coordinates.
enum PointerAction {
  case press, drag, release
  case wheel(Int)
}

/// A framed window with its own pixels. Subclasses draw below the title bar.
class Window {
  static let titleHeight = 36
  static let cornerRadius = 11

  let title: Text
  let theme: Theme
  let surface: Surface
  private(set) var frame: Rectangle
  /// What changed since the session last looked, in the window's coordinates.
  private var damage = Damage()

  var isVisible = true
  var isFocused = false {
    didSet { if isFocused != oldValue { drawTitleBar() } }
  }

  var content: Rectangle {
    Rectangle(0, Self.titleHeight, frame.width, frame.height - Self.titleHeight)
  }

  init(title: String, theme: Theme, frame: Rectangle) {
    self.title = title.text
    self.theme = theme
    self.frame = frame
    surface = Surface(width: frame.width, height: frame.height)
    surface.fill(surface.bounds, theme.body)
    drawTitleBar()
  }

  /// A key was pressed (or repeats) while the window has the focus.
  func key(_ event: KeyEvent) {}

  /// The pointer acted at `position`.
  func pointer(_ action: PointerAction, at position: Point) {}

  final func move(to x: Int, _ y: Int) { (frame.x, frame.y) = (x, y) }

  final func invalidate(_ area: Rectangle) { damage.add(area.intersection(surface.bounds)) }

  final func takeDamage() -> [Rectangle] {
    defer { damage.clear() }
    return damage.rectangles
  }

  // MARK: Frame

  enum Part { case close, minimize, title, content }

  final func part(at position: Point) -> Part {
    if closeButton.contains(position) { return .close }
    if minimizeButton.contains(position) { return .minimize }
    return position.y < Self.titleHeight ? .title : .content
  }

  private var closeButton: Rectangle { Rectangle(frame.width - 34, 6, 24, 24) }
  private var minimizeButton: Rectangle { Rectangle(frame.width - 66, 6, 24, 24) }

  private func drawTitleBar() {
    let bar = Rectangle(0, 0, frame.width, Self.titleHeight)
    surface.fill(bar, theme.header)
    surface.fill(
      Rectangle(0, bar.bottom - 1, bar.width, 1), theme.header.mixed(.rgb(0x000000), 22))
    let color = isFocused ? theme.text : theme.faded
    let left = (frame.width - Font.bold.width(title)) / 2
    Font.bold.draw(
      title, on: surface, x: left, y: (Self.titleHeight - Font.bold.lineHeight) / 2, color)
    for button in [closeButton, minimizeButton] {
      surface.disc(
        x: button.x * 16 + 192, y: button.y * 16 + 192, radius: 176,
        isFocused ? theme.button : theme.header.mixed(theme.button, 120))
    }
    let (x, y) = (closeButton.x + 12, closeButton.y + 12)
    for slope in [-1, 1] {
      surface.line(
        from: Point(x: x - 4, y: y - 4 * slope), to: Point(x: x + 3, y: y + 3 * slope), width: 22,
        color)
    }
    surface.line(
      from: Point(x: minimizeButton.x + 8, y: y + 3), to: Point(x: minimizeButton.x + 15, y: y + 3),
      width: 22, color)
    invalidate(bar)
  }

  // MARK: Composition

  /// The frame with its shadow.
  final var extent: Rectangle { frame.inset(-Shadow.wide.reach).union(shadowFrame) }

  /// The part of the screen that the window surely hides.
  final var opaque: Rectangle {
    isVisible ? frame.inset(Self.cornerRadius) : .empty
  }

  private var shadowFrame: Rectangle { frame.offset(0, 9).inset(-Shadow.wide.reach) }

  final func compose(on target: Surface) {
    let hole = frame.inset(Self.cornerRadius)
    Shadow.wide.draw(
      on: target, around: frame.offset(0, 9), hole: hole, strength: isFocused ? 120 : 70)
    Shadow.outline(on: target, around: frame, radius: Self.cornerRadius, hole: hole)
    let radius = Self.cornerRadius
    target.copy(
      surface, from: Point(x: 0, y: radius),
      to: Rectangle(frame.x, frame.y + radius, frame.width, frame.height - 2 * radius))
    composeRow(on: target, y: 0)
    composeRow(on: target, y: frame.height - radius)
  }

  /// The top or bottom `cornerRadius` rows, whose ends are round.
  private func composeRow(on target: Surface, y: Int) {
    let radius = Self.cornerRadius
    target.copy(
      surface, from: Point(x: radius, y: y),
      to: Rectangle(frame.x + radius, frame.y + y, frame.width - 2 * radius, radius))
    for x in [0, frame.width - radius] {
      let corner = Rectangle(frame.x + x, frame.y + y, radius, radius)
      target.shadeOver(corner) { px, py in
        surface[px - frame.x, py - frame.y].scaled(
          Surface.roundedCoverage(px, py, frame, radius))
      }
    }
  }
}
