/// The little of ACPI Machine Language (ACPI 6.5, chapter 20) that describes fixed
/// hardware: names, devices, packages, resource templates, and methods that return a
/// value or tell the system of an event.
package enum AML {
  package static func name(_ segment: String, _ value: [UInt8]) -> [UInt8] {
    [0x08] + path(segment) + value
  }

  package static func scope(_ segment: String, _ contents: [[UInt8]]) -> [UInt8] {
    [0x10] + withLength(path(segment) + contents.flatMap { $0 })
  }

  package static func device(_ segment: String, _ contents: [[UInt8]]) -> [UInt8] {
    [0x5B, 0x82] + withLength(path(segment) + contents.flatMap { $0 })
  }

  package static func package(_ elements: [[UInt8]]) -> [UInt8] {
    [0x12] + withLength([UInt8(clamping: elements.count)] + elements.flatMap { $0 })
  }

  package static func integer(_ value: UInt32) -> [UInt8] {
    switch value {
    case 0, 1: [UInt8(value)]
    case ...0xFF: [0x0A, UInt8(value)]
    case ...0xFFFF: [0x0B] + LittleEndian.bytes(UInt16(value))
    default: [0x0C] + LittleEndian.bytes(value)
    }
  }

  /// A 32-bit integer whatever its value, so that a loader can change it in place.
  package static func wideInteger(_ value: UInt32) -> [UInt8] {
    [0x0C] + LittleEndian.bytes(value)
  }

  /// A string of ASCII; what is not ends it.
  package static func string(_ text: String) -> [UInt8] {
    [0x0D] + text.utf8.prefix { (0x01...0x7F).contains($0) } + [0]
  }

  /// A method without arguments.
  package static func method(_ segment: String, _ terms: [[UInt8]]) -> [UInt8] {
    [0x14] + withLength(path(segment) + [0] + terms.flatMap { $0 })
  }

  /// A local variable of a method, 0 … 7.
  package static func local(_ number: UInt8) -> [UInt8] { [0x60 | number & 7] }

  /// The object of that name: segments joined by dots, from the root after a backslash.
  package static func reference(_ name: String) -> [UInt8] { path(name) }

  package static func returning(_ value: [UInt8]) -> [UInt8] { [0xA4] + value }

  /// The sum of two integers, stored nowhere.
  package static func sum(_ first: [UInt8], _ second: [UInt8]) -> [UInt8] {
    [0x72] + first + second + [0x00]
  }

  package static func store(_ value: [UInt8], _ target: [UInt8]) -> [UInt8] {
    [0x70] + value + target
  }

  /// A reference to an element of a package.
  package static func element(_ index: UInt32, of package: [UInt8]) -> [UInt8] {
    [0x88] + package + integer(index) + [0x00]
  }

  package static func notify(_ device: String, _ value: UInt32) -> [UInt8] {
    [0x86] + path(device) + integer(value)
  }

  package static func buffer(_ bytes: [UInt8]) -> [UInt8] {
    [0x11] + withLength(integer(UInt32(clamping: bytes.count)) + bytes)
  }

  /// A Plug and Play identifier such as `PNP0A03`, compressed (section 19.6.36).
  package static func eisaID(_ text: String) -> [UInt8] {
    let characters = Array(text.utf8)
    guard characters.count == 7 else { return integer(0) }
    let letters = characters[0..<3].reduce(UInt32(0)) { $0 << 5 | UInt32($1 & 0x1F) }
    let digits = characters[3...].reduce(UInt32(0)) {
      $0 << 4 | UInt32($1 <= 0x39 ? $1 &- 0x30 : $1 &- 0x37)
    }
    return [0x0C] + BigEndian.bytes(letters << 16 | digits)
  }

  /// A NameString (section 20.2.2): segments padded with underscores, at the root after
  /// a backslash.
  private static func path(_ name: String) -> [UInt8] {
    let root: [UInt8] = name.hasPrefix("\\") ? [0x5C] : []
    let segments = name.drop { $0 == "\\" }.split(separator: ".").map { segment in
      let letters = segment.utf8.prefix(4)
      return letters + Array(repeating: 0x5F, count: 4 - letters.count)
    }
    switch segments.count {
    case 1: return root + segments[0]
    case 2: return root + [0x2E] + segments[0] + segments[1]
    default: return root + [0x2F, UInt8(clamping: segments.count)] + segments.flatMap { $0 }
    }
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
  package static func template(_ descriptors: [[UInt8]]) -> [UInt8] {
    AML.buffer(descriptors.flatMap { $0 } + [0x79, 0x00])
  }

  package static func io(_ base: UInt16, count: UInt8) -> [UInt8] {
    [0x47, 0x01] + LittleEndian.bytes(base) + LittleEndian.bytes(base) + [0x01, count]
  }

  /// An ISA interrupt, 0 … 15: rising edge, not shared.
  package static func interrupt(_ number: UInt16) -> [UInt8] {
    [0x22] + LittleEndian.bytes(UInt16(1) << number)
  }

  package static func busNumbers(_ range: ClosedRange<UInt16>) -> [UInt8] {
    word(type: 2, flags: 0, range)
  }

  package static func ioWindow(_ range: ClosedRange<UInt16>) -> [UInt8] {
    word(type: 1, flags: 3, range)
  }

  package static func memoryWindow(_ range: ClosedRange<UInt32>) -> [UInt8] {
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
