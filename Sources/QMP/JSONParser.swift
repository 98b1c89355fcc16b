/// Why bytes are not JSON.
package struct JSONError: Error, Equatable, CustomStringConvertible {
  package let problem: String
  package let offset: Int

  package var description: String { "JSON parse error: \(problem) at byte \(offset)" }
}

extension JSON {
  /// Parses one complete value. Bounded in depth; the caller bounds the length.
  package init(parsing bytes: [UInt8], maximumDepth: Int = 64) throws(JSONError) {
    var parser = JSONParser(bytes: bytes, maximumDepth: maximumDepth)
    self = try parser.document()
  }
}

private struct JSONParser {
  let bytes: [UInt8]
  let maximumDepth: Int
  var position = 0

  mutating func document() throws(JSONError) -> JSON {
    let value = try value(depth: 0)
    skipSpace()
    guard position == bytes.count else { throw failure("something after the value") }
    return value
  }

  private func failure(_ problem: String) -> JSONError {
    JSONError(problem: problem, offset: position)
  }

  private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 {
      position += 1
    }
  }

  /// Takes `byte` if it comes next, after white space.
  private mutating func take(_ byte: UInt8) -> Bool {
    skipSpace()
    guard next == byte else { return false }
    position += 1
    return true
  }

  private mutating func value(depth: Int) throws(JSONError) -> JSON {
    guard depth < maximumDepth else { throw failure("nesting too deep") }
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try keyword("true", .bool(true))
    case UInt8(ascii: "f"): return try keyword("false", .bool(false))
    case UInt8(ascii: "n"): return try keyword("null", .null)
    case nil: throw failure("unexpected end")
    default: return try number()
    }
  }

  private mutating func object(depth: Int) throws(JSONError) -> JSON {
    position += 1
    var members: [String: JSON] = [:]
    if take(UInt8(ascii: "}")) { return .object(members) }
    while true {
      skipSpace()
      guard next == UInt8(ascii: "\"") else { throw failure("a member needs a name") }
      let name = try string()
      guard take(UInt8(ascii: ":")) else { throw failure("missing colon") }
      guard members.updateValue(try value(depth: depth + 1), forKey: name) == nil else {
        throw failure("duplicate member")
      }
      if take(UInt8(ascii: "}")) { return .object(members) }
      guard take(UInt8(ascii: ",")) else { throw failure("missing comma") }
    }
  }

  private mutating func array(depth: Int) throws(JSONError) -> JSON {
    position += 1
    var elements: [JSON] = []
    if take(UInt8(ascii: "]")) { return .array(elements) }
    while true {
      elements.append(try value(depth: depth + 1))
      if take(UInt8(ascii: "]")) { return .array(elements) }
      guard take(UInt8(ascii: ",")) else { throw failure("missing comma") }
    }
  }

  private mutating func keyword(_ word: String, _ value: JSON) throws(JSONError) -> JSON {
    guard bytes[position...].starts(with: word.utf8) else { throw failure("invalid keyword") }
    position += word.utf8.count
    return value
  }

  private mutating func number() throws(JSONError) -> JSON {
    let start = position
    while let byte = next, isNumeric(byte) { position += 1 }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    let digits = text.drop { $0 == "-" }
    // RFC 8259: no plus sign, no leading zeros, digits on both sides of the point.
    let plain = digits.first.map { $0.isNumber } ?? false && text.last?.isNumber ?? false
    let leadingZero =
      digits.first == "0" && (digits.dropFirst().first.map { $0.isNumber } ?? false)
    guard plain, !leadingZero, text.count - digits.count <= 1 else {
      position = start
      throw failure("invalid token")
    }
    if let whole = Int64(text) { return .integer(whole) }
    guard let value = Double(text), value.isFinite else { throw failure("invalid number") }
    return .number(value)
  }

  private func isNumeric(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"),
      UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"):
      true
    default: false
    }
  }

  private mutating func string() throws(JSONError) -> String {
    position += 1
    var text: [UInt8] = []
    while let byte = next {
      position += 1
      switch byte {
      case UInt8(ascii: "\""):
        guard let valid = String(validating: text, as: UTF8.self) else {
          throw failure("invalid UTF-8 in a string")
        }
        return valid
      case UInt8(ascii: "\\"): text += try escape()
      case ..<0x20: throw failure("control character in a string")
      default: text.append(byte)
      }
    }
    throw failure("unterminated string")
  }

  private mutating func escape() throws(JSONError) -> [UInt8] {
    guard let byte = next else { throw failure("unterminated string") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
    case UInt8(ascii: "b"): return [0x08]
    case UInt8(ascii: "f"): return [0x0C]
    case UInt8(ascii: "n"): return [0x0A]
    case UInt8(ascii: "r"): return [0x0D]
    case UInt8(ascii: "t"): return [0x09]
    case UInt8(ascii: "u"): return try unicodeEscape()
    default: throw failure("invalid escape")
    }
  }

  private mutating func unicodeEscape() throws(JSONError) -> [UInt8] {
    var scalar = try hexadecimal()
    if scalar & 0xFC00 == 0xD800 {
      guard bytes[position...].starts(with: "\\u".utf8) else { throw failure("lone surrogate") }
      position += 2
      let low = try hexadecimal()
      guard low & 0xFC00 == 0xDC00 else { throw failure("lone surrogate") }
      scalar = 0x10000 + (scalar & 0x3FF) << 10 + low & 0x3FF
    }
    guard let value = Unicode.Scalar(scalar) else { throw failure("lone surrogate") }
    return Array(String(Character(value)).utf8)
  }

  private mutating func hexadecimal() throws(JSONError) -> UInt32 {
    var value: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw failure("invalid escape")
      }
      position += 1
      value = value << 4 | UInt32(digit)
    }
    return value
  }
}
