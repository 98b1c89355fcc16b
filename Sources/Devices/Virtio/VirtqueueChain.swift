import DeviceModel

/// Chains that take something together; the driver sees all of them used, or none.
package struct ChainGroup: Sendable {
  package var first: VirtqueueChain
  package var others: [VirtqueueChain] = []

  package var count: Int { 1 + others.count }
}

/// What was found for something that may be spread over several chains.
package enum ChainSupply: Sendable {
  case enough(ChainGroup)
  /// Not yet; what there is was left where it is.
  case wait
  /// Nor will there be, however many the driver adds.
  case never
}

/// A driver's buffer: the pieces of memory that the device may read, then those that
/// it may write, checked to be RAM when it was taken.
package struct VirtqueueChain: Codable, Sendable, Equatable {
  package struct Segment: Codable, Sendable, Equatable {
    package var address: UInt64
    package var count: UInt32
  }

  /// The index of the first descriptor, or the buffer ID of a packed ring.
  var identifier: UInt16
  /// How many descriptors of the ring it took.
  var descriptorCount: UInt16 = 1
  package var readable: [Segment] = []
  package var writable: [Segment] = []

  package var readableCount: Int { readable.reduce(0) { $0 &+ Int($1.count) } }
  package var writableCount: Int { writable.reduce(0) { $0 &+ Int($1.count) } }

  /// Bytes of the readable part; `nil` when it ends before or is not RAM.
  package func read(from offset: Int, count: Int, _ memory: any GuestMemory) -> [UInt8]? {
    guard count >= 0 else { return nil }
    var isThere = false
    // SAFETY: the bytes count as initialized once all of them were read.
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      isThere = read(
        from: offset,
        into: UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: count), memory)
      initialized = isThere ? count : 0
    }
    return isThere ? bytes : nil
  }

  /// Fills `buffer` from the readable part; `false` when it ends before or is not RAM.
  package func read(
    from offset: Int, into buffer: UnsafeMutableRawBufferPointer, _ memory: any GuestMemory
  ) -> Bool {
    Self.eachPiece(readable, offset, buffer.count) { (address, range) throws(GuestMemoryError) in
      try memory.read(at: address, into: UnsafeMutableRawBufferPointer(rebasing: buffer[range]))
    }
  }

  /// A part of the readable part where it is; `nil` when that ends before or is not RAM.
  package func inPlace(from offset: Int, count: Int, _ memory: any GuestMemory) -> GuestBytes? {
    var ranges: [(address: UInt64, count: Int)] = []
    let isThere = Self.eachPiece(readable, offset, count) {
      (address, range) throws(GuestMemoryError) in
      ranges.append((address, range.count))
    }
    return isThere ? try? memory.inPlace(ranges) : nil
  }

  /// Puts bytes into the writable part; `false` when it ends before or is not RAM.
  package func write(
    _ bytes: ArraySlice<UInt8>, at offset: Int, _ memory: any GuestMemory
  ) -> Bool {
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      Self.eachPiece(writable, offset, buffer.count) { (address, range) throws(GuestMemoryError) in
        try memory.write(at: address, from: UnsafeRawBufferPointer(rebasing: buffer[range]))
      }
    }
  }

  /// A part of the writable part where it is; `nil` when that ends before or is not RAM.
  package func space(at offset: Int, count: Int, _ memory: any GuestMemory) -> GuestSpace? {
    var ranges: [(address: UInt64, count: Int)] = []
    let isThere = Self.eachPiece(writable, offset, count) {
      (address, range) throws(GuestMemoryError) in
      ranges.append((address, range.count))
    }
    return isThere ? try? memory.space(ranges) : nil
  }

  /// Calls `body` with the address of each piece of a part of `segments`, and its place in
  /// the part; `false` when they end before, or it threw.
  private static func eachPiece(
    _ segments: [Segment], _ offset: Int, _ count: Int,
    _ body: (UInt64, Range<Int>) throws(GuestMemoryError) -> Void
  ) -> Bool {
    let total = segments.reduce(0) { $0 &+ Int($1.count) }
    guard offset >= 0, count >= 0, offset <= total, count <= total - offset else { return false }
    var skipped = offset
    var done = 0
    for segment in segments where done < count {
      let length = Int(segment.count)
      guard skipped < length else {
        skipped -= length
        continue
      }
      let part = min(count - done, length - skipped)
      do {
        try body(segment.address &+ UInt64(skipped), done..<done + part)
      } catch {
        return false
      }
      done += part
      skipped = 0
    }
    return true
  }
}

extension GuestMemory {
  /// A copy of guest memory; `nil` when it is not RAM.
  func bytes(at address: UInt64, count: Int) -> [UInt8]? {
    var isMemory = false
    // SAFETY: the bytes count as initialized once all of them were read.
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      let whole = UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: count)
      isMemory = (try? read(at: address, into: whole)) != nil
      initialized = isMemory ? count : 0
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
