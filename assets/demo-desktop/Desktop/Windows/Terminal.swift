/// What a window asks of the session.
enum Request {
  case scene(Text)
  case shutDown, restart, beep
}

/// A terminal-like window with a small command language.
final class Terminal: Window {
  private static let margin = 10
  private static let mostHistory = 400
  private static let green = Pixel.rgb(0x7CE2A8)
  private static let blue = Pixel.rgb(0x7FB2FF)

  private var user: Text
  private var host: Text
  private var history: [[Cell]] = []
  private var input: Text = []
  /// Rows scrolled back from the end.
  private var offset = 0
  private var requests: [Request] = []
  private let machine: Text
  /// Nothing stands there but the greeting.
  private var isFresh = true

  private lazy var grid = TextGrid(
    in: self, area: content.inset(Self.margin), ink: theme.text, paper: theme.body)

  init(frame: Rectangle, user: Text, host: Text, machine: Text) {
    self.user = user
    self.host = host
    self.machine = machine
    super.init(title: "Terminal", theme: .dark, frame: frame)
    invalidate(content)
    greet()
  }

  private func greet() {
    history = []
    run("about".text)
    write("Type \"help\" for what this terminal knows.", theme.faded)
    isFresh = true
    show()
  }

  /// Prompts for another user on that desktop from now on.
  func show(user: Text, on host: Text) {
    self.user = user
    self.host = host
    if isFresh { greet() } else { show() }
  }

  func takeRequests() -> [Request] {
    defer { requests = [] }
    return requests
  }

  override func key(_ event: KeyEvent) {
    isFresh = false
    switch event.action {
    case .character(let code) where event.control:
      if code | 0x20 == 0x6C { history = [] }
      if code | 0x20 == 0x63 {
        add(prompt + cells(input + "^C".text, theme.text))
        input = []
      }
    case .character(let code): input.append(code)
    case .backspace: if !input.isEmpty { input.removeLast() }
    case .enter: submit()
    case .pageUp: scroll(by: grid.rows / 2)
    case .pageDown: scroll(by: -grid.rows / 2)
    default: return
    }
    switch event.action {
    case .pageUp, .pageDown: break
    default: offset = 0
    }
    show()
  }

  override func pointer(_ action: PointerAction, at position: Point) {
    guard case .wheel(let steps) = action else { return }
    scroll(by: -3 * steps)
    show()
  }

  // MARK: Commands

  private func submit() {
    add(prompt + cells(input, theme.text))
    let line = input
    input = []
    run(line)
  }

  private func run(_ line: Text) {
    let words = line.split(separator: 0x20).map { Array($0) }
    guard let command = words.first else { return }
    let rest = Text(words.dropFirst().joined(separator: [0x20]))
    if command == "help".text {
      write("about  clear  colors  date  echo TEXT  seq N  beep", theme.text)
      write("scene NAME [RATE]   fullscreen scroll drag video typing flip idle", theme.text)
      write("restart  shutdown", theme.text)
    } else if command == "about".text {
      about()
    } else if command == "clear".text {
      history = []
    } else if command == "colors".text {
      colors()
    } else if command == "date".text {
      write(Clock.long(RealTimeClock().now()), theme.text)
    } else if command == "echo".text {
      write(rest, theme.text)
    } else if command == "seq".text {
      for number in 1...max(1, min(2000, Decimal.value(rest) ?? 10)) {
        write("\(number)".text, theme.text)
      }
    } else if command == "beep".text {
      requests.append(.beep)
    } else if command == "scene".text {
      requests.append(.scene(rest))
    } else if command == "restart".text {
      requests.append(.restart)
    } else if command == "shutdown".text {
      requests.append(.shutDown)
    } else {
      write(command + ": not known here, try \"help\"".text, .rgb(0xFF8F8F))
    }
  }

  private func about() {
    let rows: [(String, Text)] = [
      ("Carrel", "demo desktop".text), ("user", user), ("desktop", host), ("machine", machine),
    ]
    for (name, value) in rows {
      var line = cells(name.text, Self.blue)
      line += cells(Text(repeating: 0x20, count: 10 - line.count), Self.blue)
      add(line + cells(value, theme.text))
    }
  }

  private func colors() {
    let palette: [Pixel] = [
      0xFF8F8F, 0xFFB86B, 0xF5D76E, 0x7CE2A8, 0x6FD3E3, 0x7FB2FF, 0xC79BFF, 0xF59BC8,
    ].map { Pixel.rgb($0) }
    for _ in 0..<2 {
      add(palette.flatMap { color in Array(repeating: cell(0x2588, color), count: 5) })
    }
  }

  // MARK: Output

  func write(_ text: String, _ ink: Pixel) { write(text.text, ink) }

  func write(_ text: Text, _ ink: Pixel) {
    isFresh = false
    add(cells(text, ink))
  }

  private func cell(_ code: UInt16, _ ink: Pixel) -> Cell {
    Cell(code: code, ink: ink, paper: theme.body)
  }

  private func cells(_ text: Text, _ ink: Pixel) -> [Cell] { text.map { cell($0, ink) } }

  private var prompt: [Cell] {
    cells(user + [0x40] + host, Self.green) + cells(" $ ".text, Self.blue)
  }

  private func add(_ line: [Cell]) {
    var rest = line[...]
    repeat {
      history.append(Array(rest.prefix(grid.columns)))
      rest = rest.dropFirst(grid.columns)
    } while !rest.isEmpty
    if history.count > Self.mostHistory {
      history.removeFirst(history.count - Self.mostHistory)
    }
  }

  private func scroll(by rows: Int) {
    offset = max(0, min(max(0, history.count + 1 - grid.rows), offset + rows))
  }

  /// Shows the end of the history and the line being typed. `scrolledUp` is by how
  /// many rows the page is known to have moved.
  func show(scrolledUp distance: Int = 0) {
    var typed = prompt + cells(input, theme.text)
    var caret = cell(0x20, theme.body)
    caret.paper = theme.text
    typed.append(caret)
    if typed.count > grid.columns { typed.removeFirst(typed.count - grid.columns) }
    let total = history.count + 1
    let first = max(0, total - grid.rows - offset)
    var page = grid.emptyPage
    for row in 0..<min(grid.rows, total - first) {
      let line = first + row == history.count ? typed : history[first + row]
      page.replaceSubrange((row * grid.columns)..<(row * grid.columns + line.count), with: line)
    }
    grid.show(page, scrolledUp: distance)
  }
}
