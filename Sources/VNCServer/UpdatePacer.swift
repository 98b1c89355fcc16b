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

  package private(set) var window = 128 * 1024
  private var flights: [Flight] = []
  private var nextIdentifier: UInt32 = 0
  private var fastest: UInt64 = .max

  package init() {}

  package var bytesInFlight: Int { flights.reduce(0) { $0 + $1.bytes } }

  /// Whether another update may start.
  package var allowsUpdate: Bool { flights.isEmpty || bytesInFlight < window }

  /// When the oldest unanswered update was sent.
  package var waitingSince: UInt64? { flights.first?.sent }

  /// An update went out; returns what its fence carries.
  package mutating func sent(bytes: Int, now: UInt64) -> UInt32 {
    nextIdentifier &+= 1
    flights.append(Flight(identifier: nextIdentifier, bytes: bytes, sent: now))
    return nextIdentifier
  }

  /// The viewer has read everything up to the update whose fence carried this.
  package mutating func answered(_ identifier: UInt32, now: UInt64) {
    guard let index = flights.firstIndex(where: { $0.identifier == identifier }) else { return }
    let flight = flights[index]
    let delivered = flights[...index].reduce(0) { $0 + $1.bytes }
    flights.removeFirst(index + 1)
    let trip = now >= flight.sent ? now - flight.sent : 0
    fastest = min(fastest, max(trip, 1))
    // Delay beyond the fastest trip is queueing: grow without it, shrink with it.
    if trip > 2 * fastest + 20_000_000 {
      window = max(Self.minimumWindow, window * 3 / 4)
    } else if trip < fastest + fastest / 2 + 5_000_000 {
      window = min(Self.maximumWindow, window + delivered)
    }
  }
}
