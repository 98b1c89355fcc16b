import DeviceModel
import Display

/// Keeps back damage of a picture that the guest is in the middle of drawing, so that
/// displays are shown whole pictures: a display that copies half of one sends pixels
/// that nobody was meant to see, and the rest soon after.
///
/// Small damage, such as an echoed key or a moved pointer, never waits. Times are
/// nanoseconds of the monotonic clock.
package struct PictureHold {
  /// The longest that anything is kept back, should the guest draw without a pause.
  package static let longest: UInt64 = 12_000_000
  /// The share of the picture from which on damage may be half a picture.
  private static let share = 16

  private var held = Region()
  private var began: UInt64 = 0

  package init() {}

  /// Whether something is kept back.
  package var isHolding: Bool { !held.isEmpty }

  /// Takes what changed since the last look; returns what displays are told.
  ///
  /// - Parameter area: the picture's pixels.
  package mutating func take(_ damage: Region, area: Int, at now: UInt64) -> Region {
    let isLarge = damage.area >= area / Self.share
    if held.isEmpty {
      guard isLarge else { return damage }
      began = now
    }
    held.formUnion(damage)
    return isLarge && now &- began < Self.longest ? Region() : release()
  }

  /// Keeps nothing back any more; returns what it was.
  package mutating func release() -> Region {
    defer { held.removeAll() }
    return held
  }
}
