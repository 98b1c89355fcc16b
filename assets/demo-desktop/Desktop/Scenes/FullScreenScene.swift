/// Changes every pixel in every frame, and writes the frame's number as a bar code.
final class FullScreenScene: Scene {
  private lazy var picture = Surface(width: screen.width, height: screen.height)
  private lazy var frame = Surface(width: screen.width, height: screen.height)

  override func start() {
    takeScreen()
    Wallpaper.draw(on: picture)
  }

  override func tick(_ count: Int) {
    let shift = count * 13 % screen.width
    let tint = UInt32(truncatingIfNeeded: count &* 0x0005_0B07) & 0x003F_3F3F
    let width = screen.width
    for part in [Rectangle(0, 0, width - shift, screen.height)] + wrapped(shift) {
      frame.copy(picture, from: Point(x: part.x == 0 ? shift : 0, y: 0), to: part)
    }
    frame.tint(tint)
    let number = UInt32(truncatingIfNeeded: count)
    BarCode.draw(number, on: frame, y: BarCode.top)
    BarCode.draw(number, on: frame, y: screen.height - BarCode.top - BarCode.cellHeight)
    screen.copy(frame, from: Point(x: 0, y: 0), to: screen.bounds)
  }

  private func wrapped(_ shift: Int) -> [Rectangle] {
    shift == 0 ? [] : [Rectangle(screen.width - shift, 0, shift, screen.height)]
  }
}

/// A number as black and white cells: white, black, 32 bits from the highest, the
/// parity that makes the count of white cells in bits and parity even, white.
enum BarCode {
  static let left = 32
  static let top = 32
  static let cellWidth = 16
  static let cellHeight = 32

  static func draw(_ number: UInt32, on surface: Surface, y: Int) {
    var cells: [Bool] = [true, false]
    for bit in (0..<UInt32(32)).reversed() { cells.append(number >> bit & 1 == 1) }
    cells.append(number.nonzeroBitCount % 2 == 1)
    cells.append(true)
    for (index, isWhite) in cells.enumerated() {
      surface.fill(
        Rectangle(left + index * cellWidth, y, cellWidth, cellHeight),
        isWhite ? .rgb(0xFFFFFF) : .rgb(0x000000))
    }
  }
}
