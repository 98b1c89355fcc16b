/// Free-hand painting with a palette and three brushes.
final class Paint: Window {
  private static let colors: [Pixel] = [
    0x24262D, 0xE5484D, 0xF28C28, 0xF5C63A, 0x30A46C, 0x2FA7C9, 0x3B6FE5, 0x8E4EC6, 0xE93D82,
    0xFFFFFF,
  ].map { Pixel.rgb($0) }
  private static let brushes = [3, 7, 14]
  private static let toolWidth = 52

  private var color = Paint.colors[6]
  private var brush = Paint.brushes[1]
  private var last: Point?

  private var canvas: Rectangle {
    Rectangle(
      Self.toolWidth, content.y, content.width - Self.toolWidth, content.height)
  }

  init(frame: Rectangle) {
    super.init(title: "Paint", theme: .light, frame: frame)
    drawTools()
    drawPicture()
    invalidate(content)
  }

  override func pointer(_ action: PointerAction, at position: Point) {
    switch action {
    case .press where position.x < Self.toolWidth: choose(position)
    case .press, .drag:
      guard last != nil || position.x >= Self.toolWidth else { return }
      if case .drag = action, last == nil { return }
      stroke(from: last ?? position, to: position)
      last = position
    case .release: last = nil
    case .wheel: break
    }
  }

  override func key(_ event: KeyEvent) {
    if case .delete = event.action { clear() }
  }

  private func stroke(from start: Point, to end: Point) {
    surface.clipped(to: canvas) {
      surface.line(from: start, to: end, width: brush * 16, color)
    }
    let reach = brush + 2
    invalidate(
      Rectangle(
        min(start.x, end.x) - reach, min(start.y, end.y) - reach,
        abs(end.x - start.x) + 2 * reach, abs(end.y - start.y) + 2 * reach
      ).intersection(canvas))
  }

  private func clear() {
    surface.fill(canvas, .rgb(0xFFFFFF))
    invalidate(canvas)
  }

  // MARK: Tools

  private func swatch(_ index: Int) -> Rectangle {
    Rectangle(7 + index % 2 * 20, content.y + 12 + index / 2 * 22, 18, 18)
  }

  private func brushButton(_ index: Int) -> Rectangle {
    Rectangle(12, content.y + 132 + index * 30, 28, 28)
  }

  private var clearButton: Rectangle { Rectangle(6, frame.height - 34, 40, 22) }

  private func choose(_ position: Point) {
    for index in Self.colors.indices where swatch(index).contains(position) {
      color = Self.colors[index]
    }
    for index in Self.brushes.indices where brushButton(index).contains(position) {
      brush = Self.brushes[index]
    }
    if clearButton.contains(position) { clear() }
    drawTools()
  }

  private func drawTools() {
    let bar = Rectangle(0, content.y, Self.toolWidth, content.height)
    surface.fill(bar, theme.header)
    surface.fill(Rectangle(bar.right - 1, bar.y, 1, bar.height), theme.button)
    for (index, entry) in Self.colors.enumerated() {
      let box = swatch(index)
      if entry == color { surface.rounded(box.inset(-2), radius: 8, theme.text) }
      surface.rounded(box.inset(-1), radius: 7, entry == color ? theme.header : theme.button)
      surface.rounded(box.inset(entry == color ? 1 : 0), radius: 6, entry)
    }
    for (index, entry) in Self.brushes.enumerated() {
      let box = brushButton(index)
      if entry == brush { surface.rounded(box, radius: 8, theme.button) }
      surface.disc(x: box.x * 16 + 224, y: box.y * 16 + 224, radius: entry * 8, theme.text)
    }
    surface.rounded(clearButton, radius: 8, theme.button)
    Font.small.draw("Clear", on: surface, x: clearButton.x + 6, y: clearButton.y + 4, theme.text)
    invalidate(bar)
  }

  // MARK: The picture it opens with

  private func drawPicture() {
    surface.fill(canvas, .rgb(0xFFFFFF))
    surface.clipped(to: canvas) {
      let left = canvas.x
      let floor = canvas.bottom - 46
      surface.rounded(
        Rectangle(left - 20, floor, canvas.width + 40, 90), radius: 30, .rgb(0xCFEBD6))
      surface.disc(
        x: (canvas.right - 62) * 16, y: (canvas.y + 54) * 16, radius: 26 * 16, .rgb(0xF5C63A))
      for (index, height) in [64, 96, 78].enumerated() {
        flower(x: left + 48 + index * 58, floor: floor + 14, height: height, index: index)
      }
    }
  }

  private func flower(x: Int, floor: Int, height: Int, index: Int) {
    let top = floor - height
    surface.line(
      from: Point(x: x, y: floor), to: Point(x: x + 3, y: top), width: 64, .rgb(0x30A46C))
    surface.line(
      from: Point(x: x, y: floor - 14), to: Point(x: x + 18, y: floor - 30), width: 100,
      .rgb(0x30A46C))
    let petals: [(Int, Int)] = [(0, -13), (12, -4), (8, 11), (-8, 11), (-12, -4)]
    for petal in petals {
      surface.disc(
        x: (x + 3 + petal.0) * 16, y: (top + petal.1) * 16, radius: 150,
        Self.colors[[1, 6, 8][index % 3]])
    }
    surface.disc(x: (x + 3) * 16, y: top * 16, radius: 120, .rgb(0xF5C63A))
  }
}
