/// Says when a disk's requests may go. Pure: time is handed in, in nanoseconds.
package struct RequestThrottle {
  package enum Direction {
    case reading, writing

    package var other: Direction { self == .reading ? .writing : .reading }
  }

  /// The buckets of one limit.
  private struct Meter {
    let quantity: DiskLimits.Quantity
    /// Of the rate in the long run; with bursts of more than a second, the burst's besides.
    var buckets: [LeakyBucket]
  }

  package private(set) var limits: DiskLimits
  private var meters: [Meter] = []

  package init(_ limits: DiskLimits, now: UInt64) {
    self.limits = limits
    for quantity in DiskLimits.Quantity.allCases {
      guard let rate = limits.rates[quantity] else { continue }
      meters.append(
        Meter(
          quantity: quantity,
          buckets: rate.buckets.map { LeakyBucket(rate: $0.rate, size: $0.size, now: now) }))
    }
  }

  /// Other limits from now on. What went lately counts where its quantity was limited before,
  /// so that nobody gains by a change.
  package mutating func change(to limits: DiskLimits, now: UInt64) {
    var changed = RequestThrottle(limits, now: now)
    for index in changed.meters.indices {
      let quantity = changed.meters[index].quantity
      guard let rate = limits.rates[quantity],
        let former = meters.first(where: { $0.quantity == quantity })
      else { continue }
      for (place, (bucket, new)) in zip(former.buckets, rate.buckets).enumerated() {
        changed.meters[index].buckets[place] = bucket.changed(
          rate: new.rate, size: new.size, now: now)
      }
    }
    self = changed
  }

  /// Nanoseconds until the next request in that direction may go.
  package mutating func delay(_ direction: Direction, now: UInt64) -> UInt64 {
    var longest: UInt64 = 0
    for meter in meters.indices where meters[meter].quantity.counts(direction) {
      for bucket in meters[meter].buckets.indices {
        longest = max(longest, meters[meter].buckets[bucket].delay(now: now))
      }
    }
    return longest
  }

  /// A request of so many bytes goes.
  package mutating func count(_ direction: Direction, bytes: Int) {
    let bytes = Double(max(bytes, 0))
    let operations = limits.operationSize.map { max(1, bytes / Double(max($0, 1))) } ?? 1
    for meter in meters.indices where meters[meter].quantity.counts(direction) {
      for bucket in meters[meter].buckets.indices {
        meters[meter].buckets[bucket].add(meters[meter].quantity.isBytes ? bytes : operations)
      }
    }
  }
}

extension DiskLimits.Quantity {
  fileprivate func counts(_ direction: RequestThrottle.Direction) -> Bool {
    switch self {
    case .bytes, .operations: true
    case .bytesRead, .reads: direction == .reading
    case .bytesWritten, .writes: direction == .writing
    }
  }
}

extension DiskLimits.Rate {
  /// Rates and sizes of what holds them.
  fileprivate var buckets: [(rate: Double, size: Double)] {
    let rate = Double(sustained)
    guard let burst else { return [(rate, rate / 10)] }
    let fast = Double(burst)
    let whole = (rate, fast * Double(burstSeconds))
    return burstSeconds > 1 ? [whole, (fast, fast / 10)] : [whole]
  }
}
