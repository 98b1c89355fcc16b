/// Integers as the bytes in memory: firmware tables, descriptors, requests.
///
/// Public and inlinable, because the compiler makes code for one type of integer of nothing
/// less in another module, and the general code costs a disk's request microseconds.
public enum LittleEndian {
  /// The bytes of `value`, lowest first.
  @inlinable public static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
  }

  /// The number at `offset`; bytes beyond the end count as 0.
  @inlinable public static func number<T: FixedWidthInteger>(
    _ bytes: [UInt8], at offset: Int, _: T.Type
  ) -> T {
    (0..<T.bitWidth / 8).reduce(0) {
      offset + $1 < bytes.count ? $0 | T(bytes[offset + $1]) << T($1 * 8) : $0
    }
  }
}

/// Integers as networks and some formats have them.
public enum BigEndian {
  /// The bytes of `value`, highest first.
  @inlinable public static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    LittleEndian.bytes(value).reversed()
  }
}
