/// A rectangle of pixels to draw on. Everything drawn is clipped to `clip`.
final class Surface {
  // SAFETY: every access below goes through rectangles clipped to width × height, and
  // the memory holds stride × height pixels for as long as the surface lives.
  private let pixels: UnsafeMutablePointer<Pixel>
  private let isOwner: Bool
  let width: Int
  let height: Int
  let stride: Int
  private(set) var clip: Rectangle

  var bounds: Rectangle { Rectangle(0, 0, width, height) }

  init(width: Int, height: Int) {
    self.width = max(1, width)
    self.height = max(1, height)
    stride = self.width
    isOwner = true
    // SAFETY: owned, and released in deinit.
    pixels = .allocate(capacity: stride * self.height)
    clip = Rectangle(0, 0, self.width, self.height)
  }

  /// Someone else's memory.
  // SAFETY: the caller has stride × height pixels there that outlive the surface.
  init(mapped: UnsafeMutablePointer<Pixel>, width: Int, height: Int, stride: Int) {
    pixels = mapped
    isOwner = false
    (self.width, self.height, self.stride) = (width, height, stride)
    clip = Rectangle(0, 0, width, height)
  }

  deinit {
    if isOwner { pixels.deallocate() }
  }

  /// Runs `body` with drawing restricted to `area` as well.
  func clipped(to area: Rectangle, _ body: () -> Void) {
    let saved = clip
    clip = clip.intersection(area)
    body()
    clip = saved
  }

  // SAFETY: callers pass rows that they have clipped to the surface.
  @inline(__always)
  private func row(_ y: Int) -> UnsafeMutablePointer<Pixel> { pixels + y &* stride }

  subscript(x: Int, y: Int) -> Pixel {
    get { bounds.contains(Point(x: x, y: y)) ? row(y)[x] : 0 }
    set { if clip.contains(Point(x: x, y: y)) { row(y)[x] = newValue } }
  }

  func fill(_ area: Rectangle, _ color: Pixel) {
    let target = area.intersection(clip)
    guard !target.isEmpty else { return }
    for y in target.y..<target.bottom {
      (row(y) + target.x).update(repeating: color, count: target.width)
    }
  }

  /// Sets each pixel of `area` to what `shade` says, without blending.
  @inline(__always)
  func shade(_ area: Rectangle, _ shade: (_ x: Int, _ y: Int) -> Pixel) {
    let target = area.intersection(clip)
    guard !target.isEmpty else { return }
    for y in target.y..<target.bottom {
      let line = row(y)
      for x in target.x..<target.right { line[x] = shade(x, y) }
    }
  }

  /// Blends `color` with the coverage (0…255) that `coverage` gives for each pixel.
  @inline(__always)
  func blend(_ area: Rectangle, _ color: Pixel, _ coverage: (_ x: Int, _ y: Int) -> UInt32) {
    let target = area.intersection(clip)
    guard !target.isEmpty else { return }
    for y in target.y..<target.bottom {
      let line = row(y)
      for x in target.x..<target.right {
        let alpha = coverage(x, y)
        if alpha == 0 { continue }
        line[x] = color.scaled(alpha).over(line[x])
      }
    }
  }

  /// Flips the bits of `pattern` in every pixel.
  func tint(_ pattern: Pixel) {
    for y in 0..<height {
      let line = row(y)
      for x in 0..<width { line[x] ^= pattern }
    }
  }

  /// Blends the premultiplied pixel that `color` gives for each place.
  @inline(__always)
  func shadeOver(_ area: Rectangle, _ color: (_ x: Int, _ y: Int) -> Pixel) {
    let target = area.intersection(clip)
    guard !target.isEmpty else { return }
    for y in target.y..<target.bottom {
      let line = row(y)
      for x in target.x..<target.right { line[x] = color(x, y).over(line[x]) }
    }
  }

  /// Copies the part of `source` at `from` to `area`.
  func copy(_ source: Surface, from: Point, to area: Rectangle) {
    let dx = from.x - area.x
    let dy = from.y - area.y
    let target = area.intersection(clip).intersection(source.bounds.offset(-dx, -dy))
    guard !target.isEmpty else { return }
    for y in target.y..<target.bottom {
      (row(y) + target.x).update(from: source.row(y + dy) + target.x + dx, count: target.width)
    }
  }

  /// Moves the pixels of `area` up by `distance`; the rows that come free keep theirs.
  func scrollUp(_ area: Rectangle, by distance: Int) {
    let target = area.intersection(bounds)
    guard distance > 0, distance < target.height else { return }
    for y in target.y..<(target.bottom - distance) {
      (row(y) + target.x).update(from: row(y + distance) + target.x, count: target.width)
    }
  }

  /// Blends a surface with premultiplied alpha at `position`.
  func composite(_ source: Surface, at position: Point) {
    let target = source.bounds.offset(position.x, position.y).intersection(clip)
    guard !target.isEmpty else { return }
    for y in target.y..<target.bottom {
      let line = row(y)
      let from = source.row(y - position.y) - position.x
      for x in target.x..<target.right {
        let color = from[x]
        if color >> 24 == 255 {
          line[x] = color
        } else if color != 0 {
          line[x] = color.over(line[x])
        }
      }
    }
  }
}
