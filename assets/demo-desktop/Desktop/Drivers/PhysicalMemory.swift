/// Reads of physical memory below 4 GiB, all of which is mapped at its own address.
enum PhysicalMemory {
  static func read<T: FixedWidthInteger>(_ address: UInt64, as type: T.Type) -> T {
    guard address >= 16, address < (1 << 32) - 8,
      // SAFETY: the first 4 GiB are identity-mapped for ring 3 (boot.S), checked above.
      let pointer = UnsafeRawPointer(bitPattern: UInt(address))
    else { return 0 }
    // SAFETY: as above; an unaligned load is allowed for integers.
    return pointer.loadUnaligned(as: type)
  }

  static func bytes(_ address: UInt64, count: Int) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(count)
    for offset in 0..<count { result.append(read(address + UInt64(offset), as: UInt8.self)) }
    return result
  }

  /// True if `text` stands at `address`.
  static func matches(_ text: StaticString, at address: UInt64) -> Bool {
    var offset: UInt64 = 0
    return text.withUTF8Buffer { bytes in
      for byte in bytes {
        if read(address + offset, as: UInt8.self) != byte { return false }
        offset += 1
      }
      return true
    }
  }
}
