/// What went through lately, less what has run out since, which it does at a steady rate.
///
/// A request may go while the bucket is not over its size, however large the request is: those
/// after it wait the longer. So the rate holds in the long run, and no request is too large.
struct LeakyBucket {
  private static let second = 1_000_000_000.0

  /// Units a second.
  private let rate: Double
  private let size: Double
  private var level = 0.0
  /// Up to when it has run out.
  private var time: UInt64

  /// - Parameters:
  ///   - rate: units a second.
  ///   - size: units that may go at once after a rest.
  ///   - now: nanoseconds, of a clock that never goes back.
  init(rate: Double, size: Double, now: UInt64) {
    self.rate = rate
    self.size = size
    time = now
  }

  /// Nanoseconds until a request may go.
  mutating func delay(now: UInt64) -> UInt64 {
    if now > time {
      level = max(0, level - Double(now - time) * rate / Self.second)
      time = now
    }
    guard level > size else { return 0 }
    // Some years at most: what would be longer is looked at again then.
    let delay = min((level - size) * Self.second / rate, 1e17)
    let whole = UInt64(delay)
    return Double(whole) < delay ? whole + 1 : whole
  }

  mutating func add(_ units: Double) { level += units }

  /// The same bucket with another rate and size. Of what it holds, no more counts than the new
  /// size: one request may go at once.
  func changed(rate: Double, size: Double, now: UInt64) -> LeakyBucket {
    var bucket = self
    _ = bucket.delay(now: now)
    var changed = LeakyBucket(rate: rate, size: size, now: now)
    changed.level = min(bucket.level, size)
    return changed
  }
}
