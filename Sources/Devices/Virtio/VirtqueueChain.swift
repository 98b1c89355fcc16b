import DeviceModel

/// A driver's buffer: the pieces of memory that the device may read, then those that
/// it may write, checked to be RAM when it was taken.
package struct VirtqueueChain: Codable, Sendable, Equatable {
  package struct Segment: Codable, Sendable, Equatable {
    package var address: UInt64
    package var count: UInt32
  }

  /// The index of the first descriptor, or the buffer ID of a packed ring.
  var identifier: UInt16
  /// How many descriptors of a packed ring it took.
  var descriptorCount: UInt16 = 1
  package var readable: [Segment] = []
  package var writable: [Segment] = []

  package var readableCount: Int { readable.reduce(0) { $0 &+ Int($1.count) } }
  package var writableCount: Int { writable.reduce(0) { $0 &+ Int($1.count) } }

  /// Bytes of the readable part; `nil` when it ends before or is not RAM.
  package func read(from offset: Int, count: Int, _ memory: any GuestMemory) -> [UInt8]? {
    guard let pieces = Self.pieces(readable, offset, count) else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    for piece in pieces {
      guard let part = memory.bytes(at: piece.address, count: Int(piece.count)) else { return nil }
      bytes += part
    }
    return bytes
  }

  /// Puts bytes into the writable part; `false` when it ends before or is not RAM.
  package func write(_ bytes: [UInt8], at offset: Int, _ memory: any GuestMemory) -> Bool {
    guard let pieces = Self.pieces(writable, offset, bytes.count) else { return false }
    var rest = bytes[...]
    for piece in pieces {
      guard memory.put(rest.prefix(Int(piece.count)), at: piece.address) else { return false }
      rest = rest.dropFirst(Int(piece.count))
    }
    return true
  }

  private static func pieces(_ segments: [Segment], _ offset: Int, _ count: Int) -> [Segment]? {
    guard offset >= 0, count >= 0 else { return nil }
    var skipped = offset
    var left = count
    var pieces: [Segment] = []
    for segment in segments where left > 0 {
      let length = Int(segment.count)
      guard skipped < length else {
        skipped -= length
        continue
      }
      let part = min(left, length - skipped)
      pieces.append(
        Segment(
          address: segment.address &+ UInt64(skipped), count: UInt32(truncatingIfNeeded: part)))
      left -= part
      skipped = 0
    }
    return left == 0 ? pieces : nil
  }
}

extension GuestMemory {
  /// A copy of guest memory; `nil` when it is not RAM.
  func bytes(at address: UInt64, count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    // SAFETY: the buffer is used only within the call.
    let isMemory = bytes.withUnsafeMutableBytes { buffer in
      do {
        try read(at: address, into: buffer)
        return true
      } catch {
        return false
      }
    }
    return isMemory ? bytes : nil
  }

  func put(_ bytes: ArraySlice<UInt8>, at address: UInt64) -> Bool {
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do {
        try write(at: address, from: buffer)
        return true
      } catch {
        return false
      }
    }
  }

  /// A little-endian number, read in one access.
  func number<Number: FixedWidthInteger>(at address: UInt64, _: Number.Type) -> Number? {
    var value: Number = 0
    // SAFETY: the buffer is the number, which outlives the call.
    let isMemory = withUnsafeMutableBytes(of: &value) { buffer in
      do {
        try read(at: address, into: buffer)
        return true
      } catch {
        return false
      }
    }
    return isMemory ? Number(littleEndian: value) : nil
  }

  /// Writes a little-endian number in one access.
  func put(_ number: some FixedWidthInteger, at address: UInt64) -> Bool {
    var value = number.littleEndian
    // SAFETY: the buffer is the number, which outlives the call.
    return withUnsafeBytes(of: &value) { buffer in
      do {
        try write(at: address, from: buffer)
        return true
      } catch {
        return false
      }
    }
  }
}
