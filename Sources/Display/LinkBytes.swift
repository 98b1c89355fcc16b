/// Little-endian fields appended to a packet.
struct LinkWriter {
  private(set) var bytes: [UInt8] = []

  mutating func write(_ value: UInt8) {
    bytes.append(value)
  }

  mutating func write(_ value: some FixedWidthInteger) {
    // SAFETY: the bytes of one integer, read while it is alive.
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  mutating func write(_ value: [UInt8]) {
    bytes += value
  }
}

/// Little-endian fields taken from a packet, each checked against its end.
struct LinkReader {
  private var rest: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) {
    rest = bytes[...]
  }

  var remaining: Int { rest.count }

  mutating func read<Value: FixedWidthInteger>(
    _ type: Value.Type = Value.self
  ) throws(DisplayLinkError) -> Value {
    let size = Value.bitWidth / 8
    guard rest.count >= size else {
      throw DisplayLinkError(.malformed, "display link: a message ends early")
    }
    var value: Value = 0
    for byte in rest.prefix(size).reversed() {
      value = (Value.bitWidth > 8 ? value << 8 : 0) | Value(truncatingIfNeeded: byte)
    }
    rest = rest.dropFirst(size)
    return value
  }

  mutating func read(count: Int) throws(DisplayLinkError) -> [UInt8] {
    guard count >= 0 && rest.count >= count else {
      throw DisplayLinkError(.malformed, "display link: a message ends early")
    }
    defer { rest = rest.dropFirst(count) }
    return Array(rest.prefix(count))
  }

  /// The rest of the packet as UTF-8 of at most `limit` bytes.
  mutating func readText(limit: Int) throws(DisplayLinkError) -> String {
    guard rest.count <= limit else {
      throw DisplayLinkError(
        .malformed, "display link: a text of \(rest.count) bytes, at most \(limit) are allowed")
    }
    let bytes = try read(count: rest.count)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw DisplayLinkError(.malformed, "display link: a text is not UTF-8")
    }
    return text
  }

  func end() throws(DisplayLinkError) {
    guard rest.isEmpty else {
      throw DisplayLinkError(.malformed, "display link: a message is too long")
    }
  }
}
