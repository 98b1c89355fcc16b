/// The launcher at the bottom.
final class Dock {
  private static let icons: [Picture] = [.editor, .paint, .terminal, .testCard]
  private static let pitch = 62
  private static let padding = 10

  private let surface: Surface
  private let pictures: [Surface]
  private var running: [Bool]
  private var hovered: Int?
  let frame: Rectangle

  init(screen: Rectangle) {
    let width = Self.icons.count * Self.pitch + 2 * Self.padding - 10
    frame = Rectangle((screen.width - width) / 2, screen.height - 82, width, 72)
    surface = Surface(width: width, height: frame.height)
    pictures = Self.icons.map { $0.load() }
    running = Self.icons.map { _ in false }
    draw()
  }

  func compose(on target: Surface) {
    target.composite(surface, at: Point(x: frame.x, y: frame.y))
  }

  func index(at position: Point) -> Int? {
    guard frame.contains(position) else { return nil }
    let index = (position.x - frame.x - Self.padding + 5) / Self.pitch
    return pictures.indices.contains(index) ? index : nil
  }

  /// Marks what is open; returns what changed.
  func show(running now: [Bool]) -> Rectangle {
    guard now != running else { return .empty }
    running = now
    draw()
    return frame
  }

  func hover(_ position: Point) -> Rectangle {
    let now = index(at: position)
    guard now != hovered else { return .empty }
    hovered = now
    draw()
    return frame
  }

  private func draw() {
    surface.fill(surface.bounds, 0)
    surface.rounded(surface.bounds, radius: 20, .rgb(0xFFFFFF), alpha: 70)
    surface.rounded(surface.bounds.inset(1), radius: 19, .rgb(0x14173A), alpha: 110)
    for (index, picture) in pictures.enumerated() {
      let left = Self.padding + index * Self.pitch
      if hovered == index {
        surface.rounded(Rectangle(left - 3, 4, 58, 58), radius: 16, .rgb(0xFFFFFF), alpha: 45)
      }
      surface.composite(picture, at: Point(x: left, y: 7))
      if running[index] {
        surface.disc(x: (left + 26) * 16, y: 65 * 16, radius: 38, .rgb(0xFFFFFF))
      }
    }
  }
}
