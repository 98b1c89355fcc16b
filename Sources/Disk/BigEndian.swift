/// Numbers as qcow2 has them: "All numbers in qcow2 are stored in Big Endian byte order"
/// (docs/interop/qcow2, General).
extension [UInt8] {
  /// The number at `offset`, which is within.
  func number<Value: FixedWidthInteger>(_ type: Value.Type = Value.self, at offset: Int) -> Value {
    self[offset..<offset + MemoryLayout<Value>.size].reduce(0) { $0 << 8 | Value($1) }
  }

  mutating func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
    let size = MemoryLayout<Value>.size
    for index in 0..<size {
      self[offset + index] = UInt8(truncatingIfNeeded: value >> Value((size - 1 - index) * 8))
    }
  }

  mutating func append<Value: FixedWidthInteger>(number value: Value) {
    let offset = count
    append(contentsOf: repeatElement(0, count: MemoryLayout<Value>.size))
    put(value, at: offset)
  }

  /// All of it as a table of 8-byte entries.
  var tableEntries: [UInt64] {
    // SAFETY: each load is within the buffer.
    withUnsafeBytes { buffer in
      (0..<buffer.count / 8).map {
        UInt64(bigEndian: buffer.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self))
      }
    }
  }
}

extension Sequence<UInt64> {
  /// As the bytes of a table.
  var tableBytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(underestimatedCount * 8)
    for entry in self { bytes.append(number: entry) }
    return bytes
  }
}
