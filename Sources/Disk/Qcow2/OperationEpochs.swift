/// Tells when all who may still be using a cluster are done.
///
/// Requests move data without the image's lock, to and from clusters that they found under
/// it. A cluster that is let go of meanwhile must not be given to somebody else before.
struct OperationEpochs {
  private var counts = [0]
  private var first: UInt64 = 0

  /// An operation looks up clusters from now on, until `end` of what this returns.
  mutating func begin() -> UInt64 {
    counts[counts.count - 1] += 1
    return first + UInt64(counts.count) - 1
  }

  mutating func end(_ epoch: UInt64) {
    counts[Int(epoch - first)] -= 1
    trim()
  }

  /// - Returns: an epoch that is over when all operations of now are.
  mutating func close() -> UInt64 {
    let closed = first + UInt64(counts.count) - 1
    counts.append(0)
    trim()
    return closed
  }

  func isOver(_ epoch: UInt64) -> Bool { epoch < first }

  private mutating func trim() {
    while counts.count > 1, counts[0] == 0 {
      counts.removeFirst()
      first += 1
    }
  }
}
