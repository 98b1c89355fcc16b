import DeviceModel

/// What stands in for guest memory.
final class PieceMemory {
  let bytes: UnsafeMutableRawBufferPointer

  init(_ size: Int) { bytes = .allocate(byteCount: size, alignment: 4096) }

  deinit { bytes.deallocate() }

  func fill(_ value: UInt8) { bytes.initializeMemory(as: UInt8.self, repeating: value) }

  /// In pieces of that size, the last one first, to be written.
  func reversedSpace(piece: Int) -> GuestSpace {
    let places = stride(from: bytes.count - piece, through: 0, by: -piece)
    return GuestSpace(
      pieces: places.map { UnsafeMutableRawBufferPointer(rebasing: bytes[$0..<$0 + piece]) },
      ranges: places.map { (UInt64($0), piece) }, owner: self)
  }

  /// In pieces of that size, the last one first.
  func reversed(piece: Int) -> GuestBytes {
    let places = stride(from: bytes.count - piece, through: 0, by: -piece)
    return GuestBytes(
      pieces: places.map { UnsafeRawBufferPointer(rebasing: bytes[$0..<$0 + piece]) },
      owner: self)
  }
}
