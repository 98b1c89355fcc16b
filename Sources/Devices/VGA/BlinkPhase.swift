/// Blinking is a function of time alone, so that it needs no timer and no state.
struct BlinkPhase: Equatable {
  /// The cursor changes every 16 frames of a 60 Hz picture, text every 32.
  static let cursorNanoseconds: UInt64 = 16 * 1_000_000_000 / 60

  var showsCursor: Bool
  var showsBlinkingText: Bool

  init(now: UInt64) {
    let half = now / Self.cursorNanoseconds
    showsCursor = half & 1 == 0
    showsBlinkingText = half & 2 == 0
  }
}
