import DeviceModel

/// RAM, as a kernel is put into it.
protocol BootMemory {
  var layout: MemoryLayoutMap { get }

  /// RAM at `address`, to be written; `nil` unless it is RAM in one piece.
  func bytes(at address: UInt64, count: Int) -> UnsafeMutableRawBufferPointer?
}

extension BootMemory {
  func write(_ bytes: [UInt8], at address: UInt64) throws(GuestMemoryError) {
    guard let target = self.bytes(at: address, count: bytes.count) else {
      throw GuestMemoryError(address: address, count: bytes.count)
    }
    target.copyBytes(from: bytes)
  }
}
