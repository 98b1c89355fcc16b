/// A plain text editor.
final class Editor: Window {
  private var lines: [Text]
  private var caretLine = 0
  private var caretColumn = 0
  private var firstRow = 0
  /// The column that up and down try to keep.
  private var wantedColumn = 0
  private static let margin = 14

  private lazy var grid = TextGrid(
    in: self, area: content.inset(Self.margin), ink: theme.text, paper: theme.body)

  init(frame: Rectangle, text: String) {
    lines = Self.lines(of: text.text)
    super.init(title: "Editor", theme: .light, frame: frame)
    invalidate(content)
    moveToEnd()
  }

  /// Everything that was written.
  var text: Text { Text(lines.joined(separator: [10])) }

  private static func lines(of text: Text) -> [Text] {
    text.split(separator: 10, omittingEmptySubsequences: false).map { Array($0) }
  }

  /// Puts one text in the place of another of as many lines, if nothing else is there.
  func replace(_ old: Text, with new: Text) {
    let replacement = Self.lines(of: new)
    guard text == old, replacement.count == lines.count else { return }
    lines = replacement
    caretColumn = min(caretColumn, lines[caretLine].count)
    update()
  }

  func clear() {
    lines = [[]]
    (caretLine, caretColumn, wantedColumn) = (0, 0, 0)
    update()
  }

  func moveToEnd() {
    caretLine = lines.count - 1
    caretColumn = lines[caretLine].count
    wantedColumn = caretColumn
    update()
  }

  override func key(_ event: KeyEvent) {
    if event.control || event.alt { return }
    switch event.action {
    case .character(let code): insert(code)
    case .tab: for _ in 0..<(4 - caretColumn % 4) { insert(0x20) }
    case .enter: breakLine()
    case .backspace: if stepBack() { deleteForward() }
    case .delete: deleteForward()
    case .left: _ = stepBack()
    case .right: stepForward()
    case .up: moveVertically(-1)
    case .down: moveVertically(1)
    case .pageUp: moveVertically(-(grid.rows - 1))
    case .pageDown: moveVertically(grid.rows - 1)
    case .home: caretColumn = 0
    case .end: caretColumn = lines[caretLine].count
    default: return
    }
    switch event.action {
    case .up, .down, .pageUp, .pageDown: break
    default: wantedColumn = caretColumn
    }
    update()
  }

  override func pointer(_ action: PointerAction, at position: Point) {
    switch action {
    case .wheel(let steps):
      firstRow = max(0, min(rowCount - 1, firstRow + steps * 3))
      show()
    case .press, .drag:
      let cell = grid.cell(at: position)
      place(row: firstRow + cell.row, column: cell.column)
      update()
    case .release: break
    }
  }

  // MARK: Editing

  func insert(_ code: UInt16) {
    lines[caretLine].insert(code, at: caretColumn)
    caretColumn += 1
  }

  func breakLine() {
    let rest = lines[caretLine][caretColumn...]
    lines.insert(Array(rest), at: caretLine + 1)
    lines[caretLine].removeSubrange(caretColumn...)
    caretLine += 1
    caretColumn = 0
  }

  private func deleteForward() {
    if caretColumn < lines[caretLine].count {
      lines[caretLine].remove(at: caretColumn)
    } else if caretLine + 1 < lines.count {
      lines[caretLine] += lines.remove(at: caretLine + 1)
    }
  }

  private func stepBack() -> Bool {
    if caretColumn > 0 {
      caretColumn -= 1
    } else if caretLine > 0 {
      caretLine -= 1
      caretColumn = lines[caretLine].count
    } else {
      return false
    }
    return true
  }

  private func stepForward() {
    if caretColumn < lines[caretLine].count {
      caretColumn += 1
    } else if caretLine + 1 < lines.count {
      caretLine += 1
      caretColumn = 0
    }
  }

  private func moveVertically(_ distance: Int) {
    caretLine = max(0, min(lines.count - 1, caretLine + distance))
    caretColumn = min(wantedColumn, lines[caretLine].count)
  }

  // MARK: Showing

  /// Rows on the screen that a line takes, wrapped; the caret may stand after its end.
  private func height(_ line: Text) -> Int { line.count / grid.columns + 1 }

  private var rowCount: Int { lines.reduce(0) { $0 + height($1) } }

  private func place(row: Int, column: Int) {
    var remaining = row
    for (index, line) in lines.enumerated() {
      if remaining < height(line) || index == lines.count - 1 {
        caretLine = index
        caretColumn = min(line.count, min(remaining, height(line) - 1) * grid.columns + column)
        wantedColumn = caretColumn
        return
      }
      remaining -= height(line)
    }
  }

  func update() {
    let caretRow =
      lines[..<caretLine].reduce(0) { $0 + height($1) } + caretColumn / grid.columns
    firstRow = max(min(firstRow, caretRow), caretRow - grid.rows + 1)
    show()
  }

  private func show() {
    var page = grid.emptyPage
    var row = -firstRow
    for (index, line) in lines.enumerated() {
      if row >= grid.rows { break }
      let start = row * grid.columns
      for (column, code) in line.enumerated() where page.indices.contains(start + column) {
        page[start + column].code = code
      }
      if index == caretLine, page.indices.contains(start + caretColumn) {
        page[start + caretColumn].paper = .rgb(0x3B7DED)
        page[start + caretColumn].ink = .rgb(0xFFFFFF)
      }
      row += height(line)
    }
    grid.show(page)
  }
}
