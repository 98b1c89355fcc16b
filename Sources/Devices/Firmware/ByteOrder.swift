/// Integers as the bytes that firmware tables are made of.
package enum LittleEndian {
  package static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
  }
}

package enum BigEndian {
  package static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    LittleEndian.bytes(value).reversed()
  }
}
