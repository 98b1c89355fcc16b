/// Counts the frames that pass at a rate, from a moment of the machine's time on. Never
/// drifts: each count follows from all the time that has passed.
package struct SampleClock: Codable, Sendable, Equatable {
  private static let second: UInt64 = 1_000_000_000
  /// Seconds that are made up for at once. Devices are looked at fifty times a second; one
  /// that was not for longer was in a process that stood still, and so did its sound.
  private static let longestAbsence: UInt64 = 10

  package let rate: Int
  private let start: UInt64
  private var counted: UInt64 = 0

  package init(rate: Int, at now: UInt64) {
    self.rate = max(rate, 1)
    start = now
  }

  /// Frames that have passed since the last call, but for those of a long absence.
  package mutating func count(until now: UInt64) -> Int {
    let elapsed = now > start ? now - start : 0
    let rate = UInt64(self.rate)
    let passed =
      elapsed / Self.second &* rate &+ elapsed % Self.second * rate / Self.second
    guard passed > counted else { return 0 }
    defer { counted = passed }
    return Int(clamping: min(passed - counted, Self.longestAbsence &* rate))
  }

  /// The first nanosecond at which `frames` more will have passed.
  package func time(after frames: Int) -> UInt64 {
    let rate = UInt64(self.rate)
    let target = counted &+ UInt64(max(frames, 0))
    return start &+ target / rate &* Self.second
      &+ (target % rate * Self.second + rate - 1) / rate
  }
}

/// How often devices that play look at the time, between what they have to tell drivers.
enum AudioPace {
  /// Sound is handed on this often.
  static let longest: UInt64 = 20_000_000
  /// A driver that wants to be told of each frame is told of several at once.
  static let shortest: UInt64 = 250_000

  /// When to look again.
  static func next(_ wanted: UInt64, after now: UInt64) -> UInt64 {
    min(max(wanted, now &+ shortest), now &+ longest)
  }
}
