/// One character cell: what stands there and in which colours.
struct Cell: Equatable {
  var code: UInt16 = 0x20
  var ink: Pixel
  var paper: Pixel
}

/// A monospaced text area that repaints only the cells that changed.
final class TextGrid {
  let columns: Int
  let rows: Int
  private let area: Rectangle
  private let cellWidth = Font.mono.cellWidth
  private let cellHeight: Int
  private let blank: Cell
  private var shown: [Cell]
  // A cycle, as windows live as long as the session does.
  private let window: Window

  init(in window: Window, area: Rectangle, ink: Pixel, paper: Pixel) {
    self.window = window
    self.area = area
    cellHeight = Font.mono.lineHeight + 1
    columns = max(1, area.width / cellWidth)
    rows = max(1, area.height / cellHeight)
    blank = Cell(ink: ink, paper: paper)
    shown = Array(repeating: blank, count: columns * rows)
    window.surface.fill(area, paper)
  }

  var emptyPage: [Cell] { Array(repeating: blank, count: columns * rows) }

  /// Shows a page of `rows` × `columns` cells.
  func show(_ page: [Cell]) {
    guard page.count == shown.count else { return }
    for row in 0..<rows { showRow(row, page) }
    shown = page
  }

  /// Shows a page that is mostly the old one moved up by `distance` rows.
  func show(_ page: [Cell], scrolledUp distance: Int) {
    guard distance > 0, distance < rows, page.count == shown.count else { return show(page) }
    let used = Rectangle(area.x, area.y, columns * cellWidth, rows * cellHeight)
    window.surface.scrollUp(used, by: distance * cellHeight)
    let kept = (rows - distance) * columns
    shown.replaceSubrange(0..<kept, with: shown[(distance * columns)...])
    window.invalidate(used)
    show(page)
  }

  /// The cell under a point of the window, clamped to the grid.
  func cell(at position: Point) -> (row: Int, column: Int) {
    let row = (position.y - area.y) / cellHeight
    let column = (position.x - area.x + cellWidth / 2) / cellWidth
    return (max(0, min(rows - 1, row)), max(0, min(columns - 1, column)))
  }

  private func showRow(_ row: Int, _ page: [Cell]) {
    var first = columns
    var last = -1
    for column in 0..<columns where page[row * columns + column] != shown[row * columns + column] {
      first = min(first, column)
      last = column
      draw(page[row * columns + column], row, column)
    }
    guard last >= first else { return }
    window.invalidate(
      Rectangle(
        area.x + first * cellWidth, area.y + row * cellHeight, (last - first + 1) * cellWidth,
        cellHeight))
  }

  private func draw(_ cell: Cell, _ row: Int, _ column: Int) {
    let box = Rectangle(
      area.x + column * cellWidth, area.y + row * cellHeight, cellWidth, cellHeight)
    window.surface.fill(box, cell.paper)
    guard cell.code != 0x20 else { return }
    window.surface.clipped(to: box) {
      Font.mono.draw([cell.code], on: window.surface, x: box.x, y: box.y, cell.ink)
    }
  }
}
