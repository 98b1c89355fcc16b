/// The little of ACPI Machine Language (ACPI 6.5, chapter 20) that describes fixed
/// hardware: names, devices, packages, resource templates.
enum AML {
  static func name(_ segment: String, _ value: [UInt8]) -> [UInt8] {
    [0x08] + path(segment) + value
  }

  static func scope(_ segment: String, _ contents: [[UInt8]]) -> [UInt8] {
    [0x10] + withLength(path(segment) + contents.flatMap { $0 })
  }

  static func device(_ segment: String, _ contents: [[UInt8]]) -> [UInt8] {
    [0x5B, 0x82] + withLength(path(segment) + contents.flatMap { $0 })
  }

  static func package(_ elements: [[UInt8]]) -> [UInt8] {
    [0x12] + withLength([UInt8(clamping: elements.count)] + elements.flatMap { $0 })
  }

  static func integer(_ value: UInt32) -> [UInt8] {
    switch value {
    case 0, 1: [UInt8(value)]
    case ...0xFF: [0x0A, UInt8(value)]
    case ...0xFFFF: [0x0B] + LittleEndian.bytes(UInt16(value))
    default: [0x0C] + LittleEndian.bytes(value)
    }
  }

  static func buffer(_ bytes: [UInt8]) -> [UInt8] {
    [0x11] + withLength(integer(UInt32(clamping: bytes.count)) + bytes)
  }

  /// A Plug and Play identifier such as `PNP0A03`, compressed (section 19.6.36).
  static func eisaID(_ text: String) -> [UInt8] {
    let characters = Array(text.utf8)
    guard characters.count == 7 else { return integer(0) }
    let letters = characters[0..<3].reduce(UInt32(0)) { $0 << 5 | UInt32($1 & 0x1F) }
    let digits = characters[3...].reduce(UInt32(0)) {
      $0 << 4 | UInt32($1 <= 0x39 ? $1 &- 0x30 : $1 &- 0x37)
    }
    return [0x0C] + BigEndian.bytes(letters << 16 | digits)
  }

  /// One name segment, padded with underscores, with an optional root prefix.
  private static func path(_ segment: String) -> [UInt8] {
    let isRooted = segment.hasPrefix("\\")
    let letters = Array(segment.utf8.drop { $0 == 0x5C }.prefix(4))
    return (isRooted ? [0x5C] : []) + letters
      + Array(repeating: 0x5F, count: 4 - letters.count)
  }

  /// PkgLength (section 20.2.4), which counts itself.
  private static func withLength(_ contents: [UInt8]) -> [UInt8] {
    let count = contents.count
    if count + 1 < 0x40 { return [UInt8(count + 1)] + contents }
    let extra = count + 2 < 0x1000 ? 1 : (count + 3 < 0x10_0000 ? 2 : 3)
    let total = count + 1 + extra
    var head = [UInt8(extra << 6 | total & 0x0F)]
    for index in 0..<extra { head.append(UInt8(truncatingIfNeeded: total >> (4 + index * 8))) }
    return head + contents
  }
}

/// Resource descriptors (ACPI 6.5, 6.4).
enum ACPIResource {
  static func template(_ descriptors: [[UInt8]]) -> [UInt8] {
    AML.buffer(descriptors.flatMap { $0 } + [0x79, 0x00])
  }

  static func io(_ base: UInt16, count: UInt8) -> [UInt8] {
    [0x47, 0x01] + LittleEndian.bytes(base) + LittleEndian.bytes(base) + [0x01, count]
  }

  static func interrupt(_ number: UInt16) -> [UInt8] {
    [0x22] + LittleEndian.bytes(UInt16(1) << number)
  }

  static func busNumbers(_ range: ClosedRange<UInt16>) -> [UInt8] {
    word(type: 2, flags: 0, range)
  }

  static func ioWindow(_ range: ClosedRange<UInt16>) -> [UInt8] {
    word(type: 1, flags: 3, range)
  }

  static func memoryWindow(_ range: ClosedRange<UInt32>) -> [UInt8] {
    [0x87, 0x17, 0x00, 0x00, 0x0C, 0x01] + LittleEndian.bytes(UInt32(0))
      + LittleEndian.bytes(range.lowerBound) + LittleEndian.bytes(range.upperBound)
      + LittleEndian.bytes(UInt32(0))
      + LittleEndian.bytes(range.upperBound &- range.lowerBound &+ 1)
  }

  private static func word(type: UInt8, flags: UInt8, _ range: ClosedRange<UInt16>) -> [UInt8] {
    [0x88, 0x0D, 0x00, type, 0x0C, flags] + LittleEndian.bytes(UInt16(0))
      + LittleEndian.bytes(range.lowerBound) + LittleEndian.bytes(range.upperBound)
      + LittleEndian.bytes(UInt16(0))
      + LittleEndian.bytes(range.upperBound &- range.lowerBound &+ 1)
  }
}
