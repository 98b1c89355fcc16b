struct Point {
  var x: Int
  var y: Int

  static func - (left: Point, right: Point) -> Point {
    Point(x: left.x - right.x, y: left.y - right.y)
  }
}

/// Pixels from (x, y) up to but without (right, bottom).
struct Rectangle: Equatable {
  var x: Int
  var y: Int
  var width: Int
  var height: Int

  init(_ x: Int, _ y: Int, _ width: Int, _ height: Int) {
    (self.x, self.y, self.width, self.height) = (x, y, width, height)
  }

  static let empty = Rectangle(0, 0, 0, 0)

  var right: Int { x + width }
  var bottom: Int { y + height }
  var isEmpty: Bool { width <= 0 || height <= 0 }
  var area: Int { isEmpty ? 0 : width * height }

  func contains(_ point: Point) -> Bool {
    point.x >= x && point.x < right && point.y >= y && point.y < bottom
  }

  func contains(_ other: Rectangle) -> Bool {
    other.x >= x && other.y >= y && other.right <= right && other.bottom <= bottom
  }

  func intersection(_ other: Rectangle) -> Rectangle {
    let left = max(x, other.x)
    let top = max(y, other.y)
    let result = Rectangle(
      left, top, min(right, other.right) - left, min(bottom, other.bottom) - top)
    return result.isEmpty ? .empty : result
  }

  func union(_ other: Rectangle) -> Rectangle {
    if isEmpty { return other }
    if other.isEmpty { return self }
    let left = min(x, other.x)
    let top = min(y, other.y)
    return Rectangle(left, top, max(right, other.right) - left, max(bottom, other.bottom) - top)
  }

  func inset(_ distance: Int) -> Rectangle {
    Rectangle(x + distance, y + distance, width - 2 * distance, height - 2 * distance)
  }

  func offset(_ dx: Int, _ dy: Int) -> Rectangle { Rectangle(x + dx, y + dy, width, height) }
}

/// What must be painted again: a few rectangles, merged where that costs little.
struct Damage {
  private(set) var rectangles: [Rectangle] = []
  private static let most = 12

  mutating func add(_ rectangle: Rectangle) {
    guard !rectangle.isEmpty else { return }
    var merged = rectangle
    var index = 0
    while index < rectangles.count {
      let other = rectangles[index]
      let both = merged.union(other)
      // Merge if little is painted that need not be.
      if both.area <= (merged.area + other.area) * 5 / 4 || rectangles.count >= Self.most {
        merged = both
        rectangles.remove(at: index)
        index = 0
      } else {
        index += 1
      }
    }
    rectangles.append(merged)
  }

  mutating func clear() { rectangles.removeAll(keepingCapacity: true) }
}
