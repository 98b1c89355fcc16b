/// An optional section behind the header (docs/interop/qcow2, Header extensions).
package struct HeaderExtension: Hashable, Sendable {
  package enum Kind {
    package static let end: UInt32 = 0
    package static let backingFormat: UInt32 = 0xE279_2ACA
    package static let featureNames: UInt32 = 0x6803_F857
    package static let bitmaps: UInt32 = 0x2385_2875
    package static let encryption: UInt32 = 0x0537_BE77
    package static let externalData: UInt32 = 0x4441_5441
  }

  package let kind: UInt32
  package let data: [UInt8]

  package init(kind: UInt32, data: [UInt8]) {
    self.kind = kind
    self.data = data
  }

  /// Whole, with padding to a multiple of 8 bytes.
  var encoded: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(number: kind)
    bytes.append(number: UInt32(data.count))
    bytes += data
    bytes += repeatElement(0, count: bytes.count.padding(to: 8))
    return bytes
  }

  /// Those between the header and `limit`, which is at most `bytes.count`, and where they
  /// end. An end marker is missing where there is no room for one.
  static func parse(
    _ bytes: [UInt8], from start: Int, limit: Int
  ) throws(FormatProblem) -> (extensions: [HeaderExtension], end: Int) {
    var extensions: [HeaderExtension] = []
    var offset = start
    while offset + 8 <= limit {
      let kind: UInt32 = bytes.number(at: offset)
      let length = Int(bytes.number(UInt32.self, at: offset + 4))
      offset += 8
      if kind == Kind.end { return (extensions, offset) }
      guard length <= limit - offset else {
        throw .corrupt("a header extension leaves the header's cluster")
      }
      extensions.append(
        HeaderExtension(kind: kind, data: Array(bytes[offset..<offset + length])))
      offset = min(limit, offset + length + length.padding(to: 8))
    }
    return (extensions, offset)
  }
}

/// The name of a feature that software may not know (Feature name table).
package struct FeatureName: Hashable, Sendable {
  package enum Field: UInt8, Sendable {
    case incompatible, compatible, autoclear
  }

  static let entrySize = 48

  let field: UInt8
  let bit: UInt8
  package let name: String

  init(_ field: Field, _ bit: UInt8, _ name: String) {
    (self.field, self.bit, self.name) = (field.rawValue, bit, name)
  }

  /// Names are an image's own words: only what is harmless to print is taken over.
  static func table(_ data: [UInt8]) -> [FeatureName] {
    stride(from: 0, to: data.count - data.count % entrySize, by: entrySize).compactMap { start in
      let text = data[start + 2..<start + entrySize].prefix { $0 != 0 }
      guard let field = Field(rawValue: data[start]), data[start + 1] < 64, !text.isEmpty,
        text.allSatisfy({ (0x20..<0x7F).contains($0) })
      else { return nil }
      return FeatureName(field, data[start + 1], String(decoding: text, as: UTF8.self))
    }
  }

  static func encode(_ names: [FeatureName]) -> [UInt8] {
    names.flatMap { name in
      let text = Array(name.name.utf8.prefix(entrySize - 2))
      return [name.field, name.bit] + text
        + [UInt8](repeating: 0, count: entrySize - 2 - text.count)
    }
  }
}

/// Where an image's dirty bitmaps are (Bitmaps extension). They are kept, and taken for
/// inconsistent by everybody once the image was written here.
package struct BitmapsExtension: Equatable, Sendable {
  let count: UInt32
  let directorySize: UInt64
  let directoryOffset: UInt64

  init?(_ data: [UInt8]) {
    guard data.count >= 24 else { return nil }
    count = data.number(at: 0)
    directorySize = data.number(at: 8)
    directoryOffset = data.number(at: 16)
  }
}

extension Int {
  /// What is missing to a multiple of `unit`, a power of two.
  func padding(to unit: Int) -> Int { -self & (unit - 1) }
}

extension UInt64 {
  func roundedUp(to unit: UInt64) -> UInt64? {
    let (sum, overflows) = addingReportingOverflow(unit - 1)
    return overflows ? nil : sum & ~(unit - 1)
  }
}
