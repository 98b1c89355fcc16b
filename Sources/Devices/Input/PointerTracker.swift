/// Steers a pointer that only understands movement to absolute positions.
///
/// It remembers where the guest's pointer must be. When it does not know (the
/// driver just started, the picture changed size, someone else moved the mouse)
/// it first drives the pointer into the top left corner. Guests that accelerate
/// drift; each touch of an edge pushes beyond it, so that the error goes.
package struct PointerTracker: Codable, Sendable, Equatable {
  package struct Size: Codable, Sendable, Equatable {
    var width = 640
    var height = 480
  }

  package struct Step: Equatable, Sendable {
    package var x: Int
    package var y: Int
    /// Whether it runs against an edge, so that it is not the sum of its parts.
    package var pushes: Bool
  }

  private struct Place: Codable, Sendable, Equatable {
    var x: Int
    var y: Int
  }

  package internal(set) var size = Size()
  private var place: Place?

  /// How far beyond an edge a touch pushes.
  private static let push = 128

  package init() {}

  package mutating func resize(width: Int, height: Int) {
    let new = Size(width: min(max(width, 1), 32768), height: min(max(height, 1), 32768))
    guard new != size else { return }
    size = new
    place = nil
  }

  /// Forgets where the pointer is.
  package mutating func lose() { place = nil }

  /// The movements, `y` downwards, that bring the pointer to `target` (0 … 65535
  /// over the picture).
  package mutating func steps(to target: (x: UInt16, y: UInt16)) -> [Step] {
    let new = Place(
      x: Int(target.x) * (size.width - 1) / 65535, y: Int(target.y) * (size.height - 1) / 65535)
    guard place != new else { return [] }
    var steps: [Step] = []
    if place == nil { steps.append(Step(x: -2 * size.width, y: -2 * size.height, pushes: true)) }
    let old = place ?? Place(x: 0, y: 0)
    let pushX = Self.push(from: old.x, to: new.x, last: size.width - 1)
    let pushY = Self.push(from: old.y, to: new.y, last: size.height - 1)
    place = new
    steps.append(
      Step(
        x: new.x - old.x + pushX, y: new.y - old.y + pushY, pushes: pushX != 0 || pushY != 0))
    return steps
  }

  /// How far to go on beyond an edge that the pointer comes to.
  private static func push(from old: Int, to new: Int, last: Int) -> Int {
    guard new != old else { return 0 }
    if new == 0 { return -push }
    return new == last ? push : 0
  }
}
