/// The desktop of one user: windows, panel, dock, and what input does to them.
final class Session: Painter {
  let screen: Screen
  let stack = WindowStack()
  let editor: Editor
  let terminal: Terminal
  private let launchers: [Window]
  private var closed: [Bool]
  private let panel: Panel
  private var user: Text
  private var desktop: Text
  private let dock: Dock
  private let wallpaper: Surface
  private(set) var dialog: Dialog?

  /// Set when the user confirmed to restart or shut down.
  private(set) var decision: Panel.Button?
  private var buttons = 0
  private var grabbed: (window: Window, part: Window.Part, offset: Point)?

  init(screen: Screen, user: Text, desktop: Text, time: RealTimeClock.Reading) {
    self.screen = screen
    let bounds = screen.bounds
    wallpaper = Surface(width: bounds.width, height: bounds.height)
    Wallpaper.draw(on: wallpaper)
    self.user = user
    self.desktop = desktop
    panel = Panel(width: bounds.width, user: user, desktop: desktop, time: time)
    dock = Dock(screen: bounds)
    let layout = Layout(bounds)
    editor = Editor(frame: layout.editor, text: Self.welcome(user))
    terminal = Terminal(
      frame: layout.terminal, user: user, host: desktop,
      machine: "\(bounds.width)×\(bounds.height), 32 bits".text)
    launchers = [editor, Paint(frame: layout.paint), terminal, TestCard(frame: layout.testCard)]
    closed = launchers.map { _ in false }
    for index in [3, 1, 2, 0] { stack.add(launchers[index]) }
    _ = stack.updateFocus()
    showRunning()
  }

  private static func welcome(_ user: Text) -> String {
    let name = String(decoding: user, as: UTF16.self)
    return """
      Welcome, \(name).

      This is your own desktop: write here, paint,
      leave whenever you like, and come back to find
      everything as it was.


      """
  }

  // MARK: Painting

  func paint(_ area: Rectangle, on surface: Surface) {
    var first = 0
    if let index = stack.firstToPaint(area) {
      first = index
    } else {
      surface.copy(wallpaper, from: Point(x: area.x, y: area.y), to: area)
    }
    for window in stack.windows[first...] where window.isVisible {
      if !window.extent.intersection(area).isEmpty { window.compose(on: surface) }
    }
    if !panel.frame.intersection(area).isEmpty { panel.compose(on: surface) }
    if !dock.frame.intersection(area).isEmpty { dock.compose(on: surface) }
    dialog?.compose(on: surface)
  }

  /// Brings everything that changed to the screen.
  func present() {
    for window in stack.windows {
      for area in window.takeDamage() where window.isVisible {
        screen.invalidate(area.offset(window.frame.x, window.frame.y))
      }
    }
    screen.present(self)
  }

  func show(_ time: RealTimeClock.Reading) { screen.invalidate(panel.show(time)) }

  /// Makes it another user's desktop, with what was written left alone; returns
  /// whether it was not this user's already.
  func show(user new: Text, on desktop: Text) -> Bool {
    guard new != user || desktop != self.desktop else { return false }
    editor.replace(Self.welcome(user).text, with: Self.welcome(new).text)
    terminal.show(user: new, on: desktop)
    screen.invalidate(panel.show(user: new, on: desktop))
    user = new
    self.desktop = desktop
    return true
  }

  /// Moves a window and repaints where it was and is.
  func move(_ window: Window, to x: Int, _ y: Int) {
    screen.invalidate(window.extent)
    window.move(to: x, y)
    screen.invalidate(window.extent)
  }

  func raise(_ window: Window) {
    if let index = launchers.firstIndex(where: { $0 === window }) { closed[index] = false }
    screen.invalidate(stack.raise(window))
    showRunning()
  }

  // MARK: Keyboard

  func key(_ event: KeyEvent) {
    if case .none = event.action { return }
    if let dialog {
      switch event.action {
      case .enter: answer(.confirm, dialog)
      case .escape: answer(.cancel, dialog)
      default: break
      }
      return
    }
    if event.alt, case .tab = event.action {
      if let next = stack.windows.first(where: { $0.isVisible }) { raise(next) }
      return
    }
    stack.front?.key(event)
  }

  // MARK: Pointer

  func pointer(_ report: PointerReport) {
    let bounds = screen.bounds
    switch report.movement {
    case .absolute(let x, let y):
      movePointer(
        to: Point(
          x: (max(0, min(65535, x)) * (bounds.width - 1) + 32767) / 65535,
          y: (max(0, min(65535, y)) * (bounds.height - 1) + 32767) / 65535))
    case .relative(let x, let y):
      let old = screen.pointer
      movePointer(to: Point(x: old.x + x, y: old.y + y))
    }
    if report.buttons & 1 != 0, buttons & 1 == 0 { press() }
    if report.buttons & 1 == 0, buttons & 1 != 0 { release() }
    buttons = report.buttons
    if report.wheel != 0, dialog == nil, let window = stack.window(at: screen.pointer) {
      window.pointer(.wheel(report.wheel), at: inside(window))
    }
  }

  private func inside(_ window: Window) -> Point {
    screen.pointer - Point(x: window.frame.x, y: window.frame.y)
  }

  private func movePointer(to position: Point) {
    guard position.x != screen.pointer.x || position.y != screen.pointer.y else { return }
    screen.movePointer(to: position)
    if let grabbed {
      let window = grabbed.window
      if grabbed.part == .title {
        let y = max(
          Panel.height, min(screen.bounds.height - 24, screen.pointer.y - grabbed.offset.y))
        move(window, to: screen.pointer.x - grabbed.offset.x, y)
      } else {
        window.pointer(.drag, at: inside(window))
      }
      return
    }
    screen.invalidate(panel.hover(screen.pointer))
    screen.invalidate(dock.hover(screen.pointer))
  }

  private func press() {
    let position = screen.pointer
    if let dialog {
      if let choice = dialog.answer(at: position) { answer(choice, dialog) }
      return
    }
    if let button = panel.button(at: position) { return ask(button) }
    if panel.frame.contains(position) { return }
    if dock.frame.contains(position) {
      if let index = dock.index(at: position) { launch(index) }
      return
    }
    guard let window = stack.window(at: position) else { return }
    raise(window)
    let part = window.part(at: inside(window))
    switch part {
    case .close, .minimize: hide(window, closing: part == .close)
    case .title, .content:
      grabbed = (window, part, inside(window))
      if part == .content { window.pointer(.press, at: inside(window)) }
    }
  }

  private func release() {
    if let grabbed, grabbed.part == .content {
      grabbed.window.pointer(.release, at: inside(grabbed.window))
    }
    grabbed = nil
  }

  private func launch(_ index: Int) {
    let window = launchers[index]
    if window === stack.front { hide(window, closing: false) } else { raise(window) }
  }

  private func hide(_ window: Window, closing: Bool) {
    if let index = launchers.firstIndex(where: { $0 === window }) { closed[index] = closing }
    screen.invalidate(stack.hide(window))
    showRunning()
  }

  private func showRunning() { screen.invalidate(dock.show(running: closed.map { !$0 })) }

  // MARK: Leaving

  func ask(_ button: Panel.Button) {
    let dialog = Dialog(button, screen: screen.bounds)
    self.dialog = dialog
    screen.invalidate(dialog.extent)
  }

  /// Shows what is about to happen, without asking.
  func announce(_ button: Panel.Button) {
    if dialog == nil { ask(button) }
    dialog?.showProgress()
    if let dialog { screen.invalidate(dialog.extent) }
    decision = button
  }

  private func answer(_ answer: Dialog.Answer, _ dialog: Dialog) {
    guard !dialog.isDone else { return }
    if answer == .confirm { return announce(dialog.purpose) }
    self.dialog = nil
    screen.invalidate(dialog.extent)
  }
}

/// Where the windows stand at first, for any screen size.
private struct Layout {
  let editor: Rectangle
  let paint: Rectangle
  let terminal: Rectangle
  let testCard: Rectangle

  init(_ screen: Rectangle) {
    let left = max(0, (screen.width - 1024) / 2)
    let top = max(0, (screen.height - 768) / 3)
    func place(_ x: Int, _ y: Int, _ width: Int, _ height: Int) -> Rectangle {
      let fitting = Rectangle(
        left + x, top + y, min(width, screen.width - 24), min(height, screen.height - 56))
      return Rectangle(
        max(12, min(fitting.x, screen.width - fitting.width - 12)),
        max(Panel.height + 8, min(fitting.y, screen.height - fitting.height - 12)),
        fitting.width, fitting.height)
    }
    editor = place(48, 66, 480, 300)
    paint = place(560, 66, 410, 310)
    testCard = place(602, 292, 374, 384)
    terminal = place(100, 392, 540, 274)
  }
}
