/// An internal snapshot of an image (docs/interop/qcow2, Snapshots).
public struct InternalSnapshot: Equatable, Sendable {
  /// How it is found, beside by its name.
  public let identifier: String
  public let name: String
  /// Seconds since 1970.
  public let time: UInt32
  /// Of the disk in it.
  public let byteCount: UInt64
  let l1Offset: UInt64
  let l1Count: UInt32

  private static let fixedSize = 40
  /// What a table may be long, and all its L1 tables together.
  static let mostBytes = 32 << 20
  static let mostL1Bytes: UInt64 = 256 << 20

  /// - Parameters:
  ///   - bytes: from the table's beginning, at least as long as it.
  ///   - size: of the image's own disk, for entries that do not say theirs.
  /// - Returns: the snapshots and how long the table is.
  static func parse(
    _ bytes: [UInt8], count: Int, size: UInt64
  ) throws(FormatProblem) -> (snapshots: [InternalSnapshot], length: Int) {
    var snapshots: [InternalSnapshot] = []
    var offset = 0
    var l1Bytes: UInt64 = 0
    for _ in 0..<count {
      guard offset + fixedSize <= bytes.count else { throw isTooLong }
      let identifierLength = Int(bytes.number(UInt16.self, at: offset + 12))
      let nameLength = Int(bytes.number(UInt16.self, at: offset + 14))
      let extraLength = Int(bytes.number(UInt32.self, at: offset + 36))
      let extra = offset + fixedSize
      let end = extra + extraLength + identifierLength + nameLength
      guard end <= bytes.count else { throw isTooLong }
      let identifier = extra + extraLength
      let name = identifier + identifierLength
      let snapshot = InternalSnapshot(
        identifier: text(bytes[identifier..<name]), name: text(bytes[name..<end]),
        time: bytes.number(at: offset + 16),
        byteCount: extraLength >= 16 ? bytes.number(at: extra + 8) : size,
        l1Offset: bytes.number(at: offset), l1Count: bytes.number(at: offset + 8))
      l1Bytes += UInt64(snapshot.l1Count) * 8
      guard UInt64(snapshot.l1Count) * 8 <= Qcow2Header.Limit.l1Bytes, l1Bytes <= mostL1Bytes
      else { throw .corrupt("the L1 tables of its snapshots are larger than is possible") }
      snapshots.append(snapshot)
      offset = end + end.padding(to: 8)
    }
    return (snapshots, offset)
  }

  private static var isTooLong: FormatProblem {
    .corrupt("its table of snapshots goes on beyond its end")
  }

  /// Names are an image's own words.
  private static func text(_ bytes: ArraySlice<UInt8>) -> String {
    String(
      String(decoding: bytes, as: UTF8.self).unicodeScalars.map {
        $0.value < 0x20 || $0.value == 0x7F ? "?" : Character($0)
      })
  }
}
