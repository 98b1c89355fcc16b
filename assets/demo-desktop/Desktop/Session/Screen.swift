/// What paints the desktop below the pointer.
protocol Painter: AnyObject {
  /// Paints all of `area` on `surface`, which is clipped to it.
  func paint(_ area: Rectangle, on surface: Surface)
}

/// The frame buffer, painted through a copy in RAM and only where something changed.
final class Screen {
  let frameBuffer: Surface
  private let back: Surface
  private var damage = Damage()
  private let pointerImage = Picture.pointer.load()
  private static let hotSpot = Point(x: 3, y: 3)

  private(set) var pointer: Point
  /// False while a scene draws on the frame buffer by itself.
  var isComposed = true {
    didSet { if isComposed { invalidate(bounds) } }
  }
  var isPointerVisible = true {
    didSet { invalidate(pointerArea) }
  }

  var bounds: Rectangle { back.bounds }

  init(_ frameBuffer: Surface) {
    self.frameBuffer = frameBuffer
    back = Surface(width: frameBuffer.width, height: frameBuffer.height)
    pointer = Point(x: frameBuffer.width / 2, y: frameBuffer.height / 2)
    damage.add(back.bounds)
  }

  func invalidate(_ area: Rectangle) { damage.add(area.intersection(bounds)) }

  func movePointer(to position: Point) {
    if isPointerVisible { invalidate(pointerArea) }
    pointer = Point(
      x: max(0, min(back.width - 1, position.x)), y: max(0, min(back.height - 1, position.y)))
    if isPointerVisible { invalidate(pointerArea) }
  }

  /// Paints what changed and copies it to the frame buffer.
  func present<P: Painter>(_ painter: P) {
    guard isComposed else {
      damage.clear()
      return
    }
    for area in damage.rectangles {
      back.clipped(to: area) {
        painter.paint(area, on: back)
        if isPointerVisible { back.composite(pointerImage, at: pointer - Self.hotSpot) }
      }
      frameBuffer.copy(back, from: Point(x: area.x, y: area.y), to: area)
    }
    damage.clear()
  }

  private var pointerArea: Rectangle {
    let corner = pointer - Self.hotSpot
    return pointerImage.bounds.offset(corner.x, corner.y)
  }
}
