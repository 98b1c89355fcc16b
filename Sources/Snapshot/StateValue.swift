/// One node of a saved state: the self-describing tree between a `Codable` type
/// and its bytes.
///
/// ```
/// state    = "CSTA" version:u8(1) value
/// value    = 00                          nil
///          | 01 | 02                     false, true
///          | 03 leb                      integer ≥ 0
///          | 04 leb                      integer < 0, as its complement (-1 is 0)
///          | 05 8 bytes                  Double, little-endian bit pattern
///          | 06 4 bytes                  Float, little-endian bit pattern
///          | 07 leb bytes                String, UTF-8
///          | 08 leb bytes                [UInt8]
///          | 09 leb value…               array
///          | 0A leb (leb bytes value)…   structure: UTF-8 key, value; keys are unique
/// leb      = unsigned LEB128 of at most 64 bits
/// ```
///
/// Structures carry their keys, so that a field added as an optional is `nil`
/// when an older state is opened, and a field that was removed is passed over.
enum StateValue: Equatable {
  case null
  case bool(Bool)
  case unsigned(UInt64)
  case negative(UInt64)
  case double(UInt64)
  case float(UInt32)
  case string(String)
  case bytes([UInt8])
  case array([StateValue])
  case structure([String: StateValue])

  static let magic: [UInt8] = Array("CSTA".utf8)
  static let formatVersion: UInt8 = 1
  /// Deeper nesting than any device has; keeps hostile bytes off the stack's end.
  static let maximumDepth = 64

  init(_ integer: some BinaryInteger) {
    if let value = UInt64(exactly: integer) {
      self = .unsigned(value)
    } else {
      self = .negative(UInt64(bitPattern: ~Int64(truncatingIfNeeded: integer)))
    }
  }

  /// What the node is, for errors.
  var kindName: String {
    switch self {
    case .null: "nil"
    case .bool: "a truth value"
    case .unsigned, .negative: "an integer"
    case .double, .float: "a floating-point number"
    case .string: "a string"
    case .bytes: "bytes"
    case .array: "an array"
    case .structure: "a structure"
    }
  }

  func integer<T: FixedWidthInteger>(_ type: T.Type) -> T? {
    switch self {
    case .unsigned(let value): T(exactly: value)
    case .negative(let value): value <= UInt64(Int64.max) ? T(exactly: ~Int64(value)) : nil
    default: nil
    }
  }
}

// MARK: - Bytes

extension StateValue {
  var serialized: [UInt8] {
    var bytes = Self.magic + [Self.formatVersion]
    append(to: &bytes)
    return bytes
  }

  private func append(to bytes: inout [UInt8]) {
    switch self {
    case .null: bytes.append(0x00)
    case .bool(let value): bytes.append(value ? 0x02 : 0x01)
    case .unsigned(let value):
      bytes.append(0x03)
      Self.append(leb: value, to: &bytes)
    case .negative(let value):
      bytes.append(0x04)
      Self.append(leb: value, to: &bytes)
    case .double(let pattern):
      bytes.append(0x05)
      for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: pattern >> (shift * 8))) }
    case .float(let pattern):
      bytes.append(0x06)
      for shift in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: pattern >> (shift * 8))) }
    case .string(let text):
      bytes.append(0x07)
      Self.append(counted: text.utf8, to: &bytes)
    case .bytes(let raw):
      bytes.append(0x08)
      Self.append(counted: raw, to: &bytes)
    case .array(let values):
      bytes.append(0x09)
      Self.append(leb: UInt64(values.count), to: &bytes)
      for value in values { value.append(to: &bytes) }
    case .structure(let fields):
      bytes.append(0x0A)
      Self.append(leb: UInt64(fields.count), to: &bytes)
      // Sorted, so that equal states are equal bytes.
      for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
        Self.append(counted: key.utf8, to: &bytes)
        value.append(to: &bytes)
      }
    }
  }

  private static func append(counted raw: some Collection<UInt8>, to bytes: inout [UInt8]) {
    append(leb: UInt64(raw.count), to: &bytes)
    bytes.append(contentsOf: raw)
  }

  private static func append(leb value: UInt64, to bytes: inout [UInt8]) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }

  /// Parses a whole state; anything left over is damage.
  init(serialized bytes: ArraySlice<UInt8>) throws(StateError) {
    var reader = StateReader(rest: bytes)
    try reader.header()
    self = try reader.value(depth: 0)
    guard reader.rest.isEmpty else {
      throw StateReader.damaged("\(reader.rest.count) bytes follow its end")
    }
  }
}

/// Takes a saved state apart; every length is checked against what is left.
private struct StateReader {
  var rest: ArraySlice<UInt8>

  static func damaged(_ what: String) -> StateError {
    StateError(
      kind: .damaged, context: "saved state is damaged: \(what); use another copy of it")
  }

  mutating func header() throws(StateError) {
    guard try take(StateValue.magic.count).elementsEqual(StateValue.magic) else {
      throw Self.damaged("it does not begin with CSTA")
    }
    let version = try byte()
    guard version <= StateValue.formatVersion, version > 0 else {
      throw StateError(
        kind: .tooNew,
        context: "saved state has format \(version), this program reads"
          + " \(StateValue.formatVersion); open it with a newer Carrel")
    }
  }

  mutating func value(depth: Int) throws(StateError) -> StateValue {
    guard depth < StateValue.maximumDepth else { throw Self.damaged("it nests too deep") }
    switch try byte() {
    case 0x00: return .null
    case 0x01: return .bool(false)
    case 0x02: return .bool(true)
    case 0x03: return .unsigned(try leb())
    case 0x04: return .negative(try leb())
    case 0x05: return .double(try littleEndian(8))
    case 0x06: return .float(UInt32(truncatingIfNeeded: try littleEndian(4)))
    case 0x07: return .string(try string())
    case 0x08: return .bytes(Array(try take(try count(minimumSize: 1))))
    case 0x09:
      let count = try count(minimumSize: 1)
      var values: [StateValue] = []
      for _ in 0..<count { values.append(try value(depth: depth + 1)) }
      return .array(values)
    case 0x0A: return try structure(depth: depth)
    case let tag: throw Self.damaged("tag \(tag) is unknown")
    }
  }

  private mutating func structure(depth: Int) throws(StateError) -> StateValue {
    // A field is at least its key's length and its value's tag.
    let count = try count(minimumSize: 2)
    var fields: [String: StateValue] = [:]
    for _ in 0..<count {
      let key = try string()
      guard fields.updateValue(try value(depth: depth + 1), forKey: key) == nil else {
        throw Self.damaged("field \(key) appears twice")
      }
    }
    return .structure(fields)
  }

  private mutating func string() throws(StateError) -> String {
    let bytes = try take(try count(minimumSize: 1))
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw Self.damaged("a string is not UTF-8")
    }
    return text
  }

  private mutating func count(minimumSize: Int) throws(StateError) -> Int {
    let count = try leb()
    guard count <= UInt64(rest.count / minimumSize) else { throw Self.damaged("it is cut short") }
    return Int(count)
  }

  private mutating func leb() throws(StateError) -> UInt64 {
    var value: UInt64 = 0
    for shift in stride(from: 0, to: 64, by: 7) {
      let next = try byte()
      guard shift < 63 || next <= 1 else { break }
      value |= UInt64(next & 0x7F) << UInt64(shift)
      if next < 0x80 { return value }
    }
    throw Self.damaged("a number has more than 64 bits")
  }

  private mutating func littleEndian(_ count: Int) throws(StateError) -> UInt64 {
    try take(count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  private mutating func byte() throws(StateError) -> UInt8 {
    guard let first = rest.popFirst() else { throw Self.damaged("it is cut short") }
    return first
  }

  private mutating func take(_ count: Int) throws(StateError) -> ArraySlice<UInt8> {
    guard count <= rest.count else { throw Self.damaged("it is cut short") }
    defer { rest = rest.dropFirst(count) }
    return rest.prefix(count)
  }
}
