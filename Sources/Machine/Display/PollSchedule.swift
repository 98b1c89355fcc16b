/// When to look at the guest's screen next: at once and often after input, fast
/// while the picture changes, ever more slowly while it does not, and not at all
/// once it stands still and something else tells of the next change.
///
/// Times are nanoseconds of the monotonic clock.
package struct PollSchedule {
  package static let afterInput: UInt64 = 1_000_000
  package static let inputWindow: UInt64 = 60_000_000
  package static let whileDrawing: UInt64 = 1_000_000
  package static let whileChanging: UInt64 = 4_000_000
  package static let slowest: UInt64 = 60_000_000

  /// What a look showed.
  package enum Sight {
    case stillness, change
    /// A picture of which only a part may be there yet.
    case drawing
  }

  private var interval = whileChanging
  private var lastLook: UInt64 = 0
  private var inputEnds: UInt64 = 0

  package init() {}

  /// The guest was given something to react to.
  package mutating func inputArrived(at now: UInt64) {
    inputEnds = now &+ Self.inputWindow
    interval = Self.whileChanging
  }

  /// The guest began to change the picture of its own accord.
  package mutating func changeBegan(at now: UInt64) {
    lastLook = now
    interval = Self.whileChanging
  }

  /// Whether the picture has stood still for so long that it is cheaper to be told
  /// of the next change than to look for it.
  package func isStill(at now: UInt64) -> Bool { interval == Self.slowest && now >= inputEnds }

  package mutating func looked(at now: UInt64, _ sight: Sight) {
    lastLook = now
    interval =
      switch sight {
      case .drawing: Self.whileDrawing
      case .change: Self.whileChanging
      case .stillness: min(max(interval * 2, Self.whileChanging), Self.slowest)
      }
  }

  /// Whether nobody has looked for longer than anybody would wait.
  package func isStale(at now: UInt64) -> Bool { now &- lastLook > Self.slowest }

  /// When the next look is due.
  package func next(after now: UInt64) -> UInt64 {
    lastLook &+ (now < inputEnds ? Self.afterInput : interval)
  }
}
