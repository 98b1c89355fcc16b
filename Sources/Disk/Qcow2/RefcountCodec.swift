/// The entries of a refcount block, of 1 to 64 bits each: "If refcount_bits implies a
/// sub-byte width, note that bit 0 means the least significant bit" (docs/interop/qcow2,
/// Refcount block entry).
package enum RefcountCodec {
  /// - Parameter order: the width is 2 to the power of it in bits.
  package static func value(
    _ block: UnsafeRawBufferPointer, _ index: Int, order: Int
  ) -> UInt64 {
    switch order {
    case 3: UInt64(block[index])
    case 4: UInt64(load(block, index, UInt16.self))
    case 5: UInt64(load(block, index, UInt32.self))
    case 6: load(block, index, UInt64.self)
    default:
      UInt64(block[index >> (3 - order)]) >> shift(index, order) & mask(order)
    }
  }

  package static func set(
    _ block: UnsafeMutableRawBufferPointer, _ index: Int, order: Int, to value: UInt64
  ) {
    switch order {
    case 3: block[index] = UInt8(truncatingIfNeeded: value)
    case 4: store(block, index, UInt16(truncatingIfNeeded: value))
    case 5: store(block, index, UInt32(truncatingIfNeeded: value))
    case 6: store(block, index, value)
    default:
      let position = index >> (3 - order)
      let kept = UInt64(block[position]) & ~(mask(order) << shift(index, order))
      block[position] = UInt8(
        truncatingIfNeeded: kept | (value & mask(order)) << shift(index, order))
    }
  }

  private static func mask(_ order: Int) -> UInt64 { (1 << (1 << UInt64(order))) - 1 }

  private static func shift(_ index: Int, _ order: Int) -> UInt64 {
    UInt64((index & ((8 >> order) - 1)) << order)
  }

  private static func load<Value: FixedWidthInteger>(
    _ block: UnsafeRawBufferPointer, _ index: Int, _: Value.Type
  ) -> Value {
    Value(
      bigEndian: block.loadUnaligned(
        fromByteOffset: index * MemoryLayout<Value>.size, as: Value.self))
  }

  private static func store<Value: FixedWidthInteger>(
    _ block: UnsafeMutableRawBufferPointer, _ index: Int, _ value: Value
  ) {
    block.storeBytes(
      of: value.bigEndian, toByteOffset: index * MemoryLayout<Value>.size, as: Value.self)
  }
}
