/// Bytes received and not yet understood, never more than `limit`.
struct HandshakeBuffer: Sendable {
  let limit: Int
  private var bytes: [UInt8] = []

  init(limit: Int) { self.limit = limit }

  var count: Int { bytes.count }

  /// Adds what came in; `false`, and nothing kept, when that exceeds the limit.
  mutating func append(_ more: [UInt8]) -> Bool {
    guard more.count <= limit - bytes.count else {
      bytes = []
      return false
    }
    bytes += more
    return true
  }

  /// Takes exactly `count` bytes once that many are there.
  mutating func take(_ count: Int) -> [UInt8]? {
    guard count >= 0, bytes.count >= count else { return nil }
    defer { bytes.removeFirst(count) }
    return Array(bytes[..<count])
  }

  mutating func takeAll() -> [UInt8] {
    defer { bytes = [] }
    return bytes
  }

  mutating func takeUInt8() -> UInt8? { take(1)?[0] }

  mutating func takeUInt32() -> UInt32? { take(4).map { UInt32(bigEndian: $0) } }

  /// The big-endian number at `offset`, left in place.
  func peekUInt32(at offset: Int) -> UInt32? {
    guard bytes.count >= offset + 4 else { return nil }
    return UInt32(bigEndian: Array(bytes[offset..<offset + 4]))
  }
}

extension UInt32 {
  /// The number that four network-order bytes stand for.
  init(bigEndian bytes: [UInt8]) {
    self = bytes.prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
  }

  /// This number as four network-order bytes.
  var bigEndianBytes: [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: self >> $0) }
  }
}

/// A reason as the protocol carries it: length, then UTF-8 text.
func reasonBytes(_ reason: String) -> [UInt8] {
  let text = Array(reason.utf8.prefix(1024))
  return UInt32(text.count).bigEndianBytes + text
}
