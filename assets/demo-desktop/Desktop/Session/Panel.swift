/// The bar at the top: whose desktop this is, the time, restart and shut down.
final class Panel {
  static let height = 32

  enum Button { case restart, shutDown }

  private let surface: Surface
  private var user: Text
  private var desktop: Text
  private let logo = Picture.logo.load()
  private let restartIcon = Picture.restart.load()
  private let powerIcon = Picture.power.load()
  private var time: Text = []
  private var hovered: Button?

  private static let white = Pixel.rgb(0xFFFFFF)

  let frame: Rectangle

  init(width: Int, user: Text, desktop: Text, time: RealTimeClock.Reading) {
    frame = Rectangle(0, 0, width, Self.height)
    surface = Surface(width: width, height: Self.height)
    self.user = user
    self.desktop = desktop
    self.time = Clock.short(time)
    draw()
  }

  func compose(on target: Surface) { target.composite(surface, at: Point(x: 0, y: 0)) }

  /// Shows a new time; returns what changed.
  func show(_ reading: RealTimeClock.Reading) -> Rectangle {
    let text = Clock.short(reading)
    guard text != time else { return .empty }
    let wider = max(Font.bold.width(text), Font.bold.width(time)) + 4
    time = text
    draw()
    return Rectangle((frame.width - wider) / 2, 0, wider, Self.height)
  }

  /// Shows another user on that desktop; returns what changed.
  func show(user: Text, on desktop: Text) -> Rectangle {
    self.user = user
    self.desktop = desktop
    draw()
    return frame
  }

  func button(at position: Point) -> Button? {
    if box(.shutDown).contains(position) { return .shutDown }
    return box(.restart).contains(position) ? .restart : nil
  }

  /// Lights the button below the pointer; returns what changed.
  func hover(_ position: Point) -> Rectangle {
    let now = button(at: position)
    guard now != hovered else { return .empty }
    hovered = now
    draw()
    return box(.restart).union(box(.shutDown))
  }

  private func box(_ button: Button) -> Rectangle {
    Rectangle(frame.width - (button == .shutDown ? 36 : 70), 2, 30, 28)
  }

  private func draw() {
    surface.fill(surface.bounds, Pixel.rgb(0x0B0E20).scaled(150))
    surface.composite(logo, at: Point(x: 12, y: 6))
    let textTop = (Self.height - Font.bold.lineHeight) / 2
    Font.bold.draw("Carrel", on: surface, x: 40, y: textTop, Self.white)
    Font.bold.draw(
      time, on: surface, x: (frame.width - Font.bold.width(time)) / 2, y: textTop, Self.white)
    let room = frame.width / 2 - 180
    let name = Font.body.fitting(desktop, width: room / 2)
    let owner = Font.bold.fitting(user, width: room / 2)
    var right = frame.width - 84 - Font.body.width(name)
    Font.body.draw(name, on: surface, x: right, y: textTop, .rgb(0xC6CCE4))
    right -= 14 + Font.bold.width(owner)
    Font.bold.draw(owner, on: surface, x: right, y: textTop, Self.white)
    if let hovered { surface.rounded(box(hovered), radius: 8, Self.white, alpha: 50) }
    for (button, icon) in [(Button.restart, restartIcon), (.shutDown, powerIcon)] {
      surface.composite(icon, at: Point(x: box(button).x + 6, y: 7))
    }
  }
}
