/// RFC 4648, section 4. By hand, because Foundation's would come into every VMM with this
/// target, and starting one costs enough.
package enum Base64 {
  private static let alphabet = Array(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
  private static let padding = UInt8(ascii: "=")

  /// By byte.
  private static let values: [UInt32?] = {
    var values = [UInt32?](repeating: nil, count: 256)
    for (value, byte) in alphabet.enumerated() { values[Int(byte)] = UInt32(value) }
    return values
  }()

  package static func encode(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32((3 - group.count) * 8)
      for index in 0..<4 {
        let value = Int(bits >> UInt32(18 - index * 6) & 0x3F)
        text.append(index <= group.count ? alphabet[value] : padding)
      }
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// `nil` for what is not the one encoding of some bytes.
  package static func decode(_ text: String) -> [UInt8]? {
    let digits = Array(text.utf8)
    guard digits.count.isMultiple(of: 4) else { return nil }
    let missing = digits.reversed().prefix(2).prefix { $0 == padding }.count
    var bytes: [UInt8] = []
    bytes.reserveCapacity(digits.count / 4 * 3)
    for start in stride(from: 0, to: digits.count, by: 4) {
      var bits: UInt32 = 0
      for index in start..<start + 4 {
        let isPadding = index >= digits.count - missing
        guard let value = isPadding ? 0 : values[Int(digits[index])] else { return nil }
        bits = bits << 6 | value
      }
      bytes += [
        UInt8(truncatingIfNeeded: bits >> 16), UInt8(truncatingIfNeeded: bits >> 8),
        UInt8(truncatingIfNeeded: bits),
      ]
    }
    // Bits that stand for nothing are zero.
    guard bytes.suffix(missing).allSatisfy({ $0 == 0 }) else { return nil }
    bytes.removeLast(missing)
    return bytes
  }
}
