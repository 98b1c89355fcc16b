import DeviceModel

/// What displays see of a card's outputs: one output's picture as it lies in its resource,
/// several side by side in a picture of their own, or black where the guest shows nothing.
final class GraphicsScreen {
  /// A part of a resource, as one output shows it.
  struct View: Equatable {
    var resource: UInt32
    /// Its first pixel in the card's memory.
    var place: Int
    var stride: Int
    /// Within the resource.
    var rect: Rect
  }

  /// More changed areas than these become one.
  private static let mostRects = 64

  private let memory: GraphicsMemory
  private var views: [View] = []
  private var scanout: Scanout?
  private var damage: [Rect] = []
  /// A picture that belongs to no resource.
  private var own: (offset: Int, width: Int, height: Int)?

  init(_ memory: GraphicsMemory) { self.memory = memory }

  /// Shows `views` from left to right, or a black picture of a size when there are none.
  func show(_ views: [View], blank: (width: Int, height: Int)) {
    guard views != self.views || scanout == nil else { return }
    self.views = views
    switch views.count {
    case 0: present(width: blank.width, height: blank.height, isBlank: true)
    case 1: presentDirectly(views[0])
    default:
      present(
        width: views.reduce(0) { $0 + $1.rect.width },
        height: views.reduce(0) { max($0, $1.rect.height) }, isBlank: false)
    }
  }

  private func presentDirectly(_ view: View) {
    dropOwn()
    replace(
      Scanout(
        source: .graphicsMemory, offset: view.place, stride: view.stride, width: view.rect.width,
        height: view.rect.height, format: .xrgb8888))
  }

  private func present(width: Int, height: Int, isBlank: Bool) {
    let width = min(width, VirtioGPU.maximumSide)
    dropOwn()
    guard let offset = memory.allocate(width * height * GraphicsResource.bytesPerPixel) else {
      // The guest filled the card's memory: one output is better than none.
      if let first = views.first { presentDirectly(first) }
      return
    }
    own = (offset, width, height)
    replace(
      Scanout(
        source: .graphicsMemory, offset: offset, stride: width * GraphicsResource.bytesPerPixel,
        width: width, height: height, format: .xrgb8888))
    if !isBlank { composeAgain() }
  }

  /// Makes the common picture anew, as when resources were filled behind its back.
  func composeAgain() { compose(nil, Rect(x: 0, y: 0, width: 0, height: 0)) }

  private func dropOwn() {
    if let own { memory.free(own.offset) }
    own = nil
  }

  private func replace(_ new: Scanout) {
    scanout = new
    damage = [Rect(x: 0, y: 0, width: new.width, height: new.height)]
  }

  /// These pixels of a resource changed. Says whether they are on the screen.
  func flush(_ resource: UInt32, _ rect: Rect) -> Bool {
    guard views.contains(where: { $0.resource == resource }) else { return false }
    if own == nil {
      guard let view = views.first else { return false }
      add(rect.intersection(view.rect), movedBy: (-view.rect.x, -view.rect.y))
    } else {
      compose(resource, rect)
    }
    return true
  }

  /// Copies what changed in one resource, or in all, into the common picture.
  private func compose(_ resource: UInt32?, _ rect: Rect) {
    guard let own else { return }
    var left = 0
    for view in views {
      defer { left += view.rect.width }
      guard resource == nil || view.resource == resource else { continue }
      var part = resource == nil ? view.rect : rect.intersection(view.rect)
      part.width = min(part.width, own.width - left - (part.x - view.rect.x))
      guard !part.isEmpty else { continue }
      let shift = (left - view.rect.x, -view.rect.y)
      copy(part, of: view, to: own, movedBy: shift)
      add(part, movedBy: shift)
    }
  }

  private func copy(
    _ part: Rect, of view: View, to own: (offset: Int, width: Int, height: Int),
    movedBy shift: (x: Int, y: Int)
  ) {
    let size = GraphicsResource.bytesPerPixel
    for row in part.y..<part.y + part.height {
      let from = view.place + (row - view.rect.y) * view.stride + (part.x - view.rect.x) * size
      let to = own.offset + ((row + shift.y) * own.width + part.x + shift.x) * size
      guard let source = memory.bytes(from, count: part.width * size),
        let target = memory.bytes(to, count: part.width * size)
      else { return }
      target.copyMemory(from: UnsafeRawBufferPointer(source))
    }
  }

  private func add(_ rect: Rect, movedBy shift: (x: Int, y: Int)) {
    guard !rect.isEmpty else { return }
    damage.append(
      Rect(x: rect.x + shift.x, y: rect.y + shift.y, width: rect.width, height: rect.height))
    guard damage.count > Self.mostRects else { return }
    let left = damage.reduce(Int.max) { min($0, $1.x) }
    let top = damage.reduce(Int.max) { min($0, $1.y) }
    damage = [
      Rect(
        x: left, y: top, width: damage.reduce(0) { max($0, $1.x + $1.width) } - left,
        height: damage.reduce(0) { max($0, $1.y + $1.height) } - top)
    ]
  }

  /// The picture, and what changed in it since the last call; `nil` before there is one.
  func takeUpdate() -> ScanoutUpdate? {
    guard let scanout else { return nil }
    defer { damage = [] }
    return ScanoutUpdate(scanout: scanout, damage: damage)
  }

  /// Shows nothing, as before the first picture.
  func reset() {
    dropOwn()
    views = []
    scanout = nil
    damage = []
  }
}
