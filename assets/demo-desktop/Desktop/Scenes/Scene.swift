/// Something that draws by itself, for measurements. README.md describes each.
class Scene {
  /// How often `tick` runs.
  enum Rate: Equatable {
    case never
    case perSecond(Int)
    case unlimited
  }

  let session: Session
  let rate: Rate
  var screen: Surface { session.screen.frameBuffer }

  init(_ session: Session, rate: Rate) {
    self.session = session
    self.rate = rate
  }

  /// Called once before the first tick.
  func start() {}

  /// Called at `rate`, with the number of calls before.
  func tick(_ count: Int) {}

  /// Called before anything else is done about a key.
  func key(_ event: KeyEvent) {}

  /// Called when the scene ends; the desktop paints itself again after it.
  func stop() {
    session.screen.isPointerVisible = true
    session.screen.isComposed = true
  }

  final func takeScreen() {
    session.screen.isPointerVisible = false
    session.screen.isComposed = false
  }

  static let names = "fullscreen scroll drag video typing flip idle"

  /// `NAME` or `NAME RATE`, where RATE is a number per second or `max`.
  static func make(_ text: Text, _ session: Session) -> Scene? {
    let words = text.split(separator: 0x20).map { Array($0) }
    guard let name = words.first else { return nil }
    var wanted: Rate?
    if words.count > 1 {
      if words[1] == "max".text { wanted = .unlimited }
      if let number = Decimal.value(words[1]), number > 0 { wanted = .perSecond(min(1000, number)) }
    }
    if name == "fullscreen".text {
      return FullScreenScene(session, rate: wanted ?? .perSecond(60))
    }
    if name == "scroll".text { return ScrollScene(session, rate: wanted ?? .perSecond(30)) }
    if name == "drag".text { return DragScene(session, rate: wanted ?? .perSecond(60)) }
    if name == "video".text { return VideoScene(session, rate: wanted ?? .perSecond(30)) }
    if name == "typing".text { return TypingScene(session, rate: wanted ?? .perSecond(10)) }
    if name == "flip".text { return FlipScene(session, rate: .never) }
    if name == "idle".text { return IdleScene(session, rate: .never) }
    return nil
  }
}

/// A desktop on which nothing moves, not even the clock.
final class IdleScene: Scene {
  override func start() { RealTimeClock().stopAlarm() }

  override func stop() {
    super.stop()
    RealTimeClock().startMinuteAlarm()
  }
}

/// A square that turns from black to white and back at each key press.
final class FlipScene: Scene {
  static let area = Rectangle(64, 64, 128, 128)
  private var isWhite = false

  override func start() {
    takeScreen()
    screen.fill(screen.bounds, .rgb(0x3A4A66))
    screen.fill(Self.area, .rgb(0x000000))
  }

  override func key(_ event: KeyEvent) {
    guard event.isDown, !event.isRepeat else { return }
    isWhite.toggle()
    screen.fill(Self.area, isWhite ? .rgb(0xFFFFFF) : .rgb(0x000000))
  }
}

/// A window that travels over the desktop.
final class DragScene: Scene {
  private var home = Point(x: 0, y: 0)

  override func start() {
    session.raise(session.editor)
    home = Point(x: session.editor.frame.x, y: session.editor.frame.y)
  }

  override func tick(_ count: Int) {
    let bounds = session.screen.bounds
    let frame = session.editor.frame
    let x = Self.swing(count * 7, bounds.width - frame.width)
    let y = Self.swing(count * 5, bounds.height - frame.height - Panel.height)
    session.move(session.editor, to: x, Panel.height + y)
  }

  override func stop() {
    session.move(session.editor, to: home.x, home.y)
    super.stop()
  }

  /// Back and forth between 0 and `range`.
  private static func swing(_ position: Int, _ range: Int) -> Int {
    guard range > 0 else { return 0 }
    let turn = position % (2 * range)
    return turn < range ? turn : 2 * range - turn
  }
}
