/// How often each host cluster is referred to.
struct ReferenceCounts {
  private static let chunkBits: UInt64 = 10
  /// Of memory, which is enough for tens of terabytes in clusters of 64 KiB.
  private static let mostChunks = 1 << 18
  private(set) var chunks: [UInt64: [UInt32]] = [:]

  /// - Returns: `false` when there is no memory for it.
  mutating func add(_ cluster: UInt64, times: UInt32 = 1) -> Bool {
    let (chunk, index) = (cluster >> Self.chunkBits, Int(cluster & (1 << Self.chunkBits - 1)))
    if chunks[chunk] == nil {
      guard chunks.count < Self.mostChunks else { return false }
      chunks[chunk] = [UInt32](repeating: 0, count: 1 << Self.chunkBits)
    }
    chunks[chunk]?[index].addSaturating(times)
    return true
  }

  subscript(cluster: UInt64) -> UInt64 {
    chunks[cluster >> Self.chunkBits].map {
      UInt64($0[Int(cluster & (1 << Self.chunkBits - 1))])
    } ?? 0
  }

  /// The clusters that are referred to, in their order.
  func forEach(_ body: (UInt64, UInt64) throws(DiskError) -> Void) throws(DiskError) {
    for (chunk, counts) in chunks.sorted(by: { $0.key < $1.key }) {
      for (index, count) in counts.enumerated() where count > 0 {
        try body(chunk << Self.chunkBits + UInt64(index), UInt64(count))
      }
    }
  }

  var end: UInt64 {
    var end: UInt64 = 0
    for (chunk, counts) in chunks {
      guard let last = counts.lastIndex(where: { $0 > 0 }) else { continue }
      end = max(end, chunk << Self.chunkBits + UInt64(last) + 1)
    }
    return end
  }
}

extension UInt32 {
  fileprivate mutating func addSaturating(_ other: UInt32) {
    let (sum, overflows) = addingReportingOverflow(other)
    self = overflows ? .max : sum
  }
}
