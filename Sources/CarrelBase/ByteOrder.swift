/// Integers as the bytes in memory: firmware tables, descriptors, requests. Inlined, as each
/// request of a disk needs several and the general form costs microseconds.
package enum LittleEndian {
  @inlinable package static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
  }

  /// The number at `offset`; bytes beyond the end count as 0.
  @inlinable package static func number<T: FixedWidthInteger>(
    _ bytes: [UInt8], at offset: Int, _: T.Type
  )
    -> T
  {
    (0..<T.bitWidth / 8).reduce(0) {
      offset + $1 < bytes.count ? $0 | T(bytes[offset + $1]) << T($1 * 8) : $0
    }
  }
}

package enum BigEndian {
  @inlinable package static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    LittleEndian.bytes(value).reversed()
  }
}
