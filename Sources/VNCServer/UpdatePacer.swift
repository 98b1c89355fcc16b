/// Decides whether another update may be put on its way to a viewer that answers
/// fences: as many bytes may be under way as the path carries without queueing.
///
/// Pure; times are nanoseconds of one monotonic clock.
package struct UpdatePacer {
  private struct Flight {
    let identifier: UInt32
    let bytes: Int
    let sent: UInt64
  }

  /// Bytes under way that always are allowed.
  package static let minimumWindow = 16 * 1024
  private static let maximumWindow = 4 * 1024 * 1024
  /// Bytes a second of the slowest path that is thought of, and until one is measured.
  private static let lowestRate = 16_000
  private static let assumedRate = 125_000
  /// Fewer bytes measure the path's delay, not what it carries.
  private static let measurable = 64 * 1024
  /// However slow the path, its viewer is not waited for any longer.
  private static let longestDelivery: UInt64 = 30_000_000_000

  package private(set) var window = 128 * 1024
  private var flights: [Flight] = []
  private var nextIdentifier: UInt32 = 0
  private var fastest: UInt64 = .max
  private var rate = assumedRate

  package init() {}

  package var bytesInFlight: Int { flights.reduce(0) { $0 + $1.bytes } }

  /// Whether another update may start.
  package var allowsUpdate: Bool { flights.isEmpty || bytesInFlight < window }

  /// When the oldest unanswered update was sent.
  package var waitingSince: UInt64? { flights.first?.sent }

  /// How long what is under way takes where relays and kernels on the way took it all
  /// and hand it on as slowly as the path has been.
  package var deliveryTime: UInt64 {
    min(Self.longestDelivery, UInt64(bytesInFlight) * 1_000_000_000 / UInt64(rate))
  }

  /// The viewer answers no fences any more.
  package mutating func forget() { flights = [] }

  /// An update went out; returns what its fence carries.
  package mutating func sent(bytes: Int, now: UInt64) -> UInt32 {
    nextIdentifier &+= 1
    flights.append(Flight(identifier: nextIdentifier, bytes: bytes, sent: now))
    return nextIdentifier
  }

  /// The viewer has read everything up to the update whose fence carried this; returns
  /// `false` when there is none.
  @discardableResult
  package mutating func answered(_ identifier: UInt32, now: UInt64) -> Bool {
    guard let index = flights.firstIndex(where: { $0.identifier == identifier }) else {
      return false
    }
    let flight = flights[index]
    let delivered = flights[...index].reduce(0) { $0 + $1.bytes }
    flights.removeFirst(index + 1)
    let trip = now >= flight.sent ? now - flight.sent : 0
    fastest = min(fastest, max(trip, 1))
    measure(delivered, in: max(trip, 1))
    // Delay beyond the fastest trip is queueing: grow without it, shrink with it.
    if trip > 2 * fastest + 20_000_000 {
      window = max(Self.minimumWindow, window * 3 / 4)
    } else if trip < fastest + fastest / 2 + 5_000_000 {
      window = min(Self.maximumWindow, window + delivered)
    }
    return true
  }

  private mutating func measure(_ bytes: Int, in time: UInt64) {
    let sample = Int(clamping: UInt64(bytes) * 1_000_000_000 / time)
    if sample > rate {
      rate = sample
    } else if bytes >= Self.measurable {
      rate = max(Self.lowestRate, (3 * rate + sample) / 4)
    }
  }
}
