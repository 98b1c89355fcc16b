import LinuxSystem

// SAFETY: the bytes are reached with the lock held.
/// An image in memory, for the fuzz target and tests.
package final class MemoryStorage: ImageStorage, @unchecked Sendable {
  private static let noSpace: Int32 = 28
  private let lock = Lock()
  private var bytes: [UInt8]
  private let limit: Int
  package let growsWithZeros = true

  /// - Parameter limit: how large it may become.
  package init(_ bytes: [UInt8] = [], limit: Int) {
    self.bytes = bytes
    self.limit = limit
  }

  package var contents: [UInt8] { lock.withLock { bytes } }

  package func size() -> UInt64 { lock.withLock { UInt64(bytes.count) } }

  package func grow(to size: UInt64) throws(SystemError) {
    try lock.withLock { () throws(SystemError) in try makeRoom(size) }
  }

  private func makeRoom(_ size: UInt64) throws(SystemError) {
    guard size <= UInt64(limit) else { throw SystemError(code: Self.noSpace, "grow") }
    let missing = Int(size) - bytes.count
    if missing > 0 { bytes.append(contentsOf: repeatElement(0, count: missing)) }
  }

  package func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64) -> Int {
    lock.withLock {
      guard offset < UInt64(bytes.count) else { return 0 }
      let count = min(bytes.count - Int(offset), buffers.byteCount)
      // SAFETY: the buffer is used only within the call.
      bytes.withUnsafeBytes { source in
        buffers.copy(from: .init(rebasing: source[Int(offset)..<Int(offset) + count]))
      }
      return count
    }
  }

  package func write(_ buffers: [UnsafeRawBufferPointer], offset: UInt64) throws(SystemError) {
    try lock.withLock { () throws(SystemError) in
      let (end, overflows) = offset.addingReportingOverflow(UInt64(buffers.byteCount))
      try makeRoom(overflows ? .max : end)
      var place = Int(offset)
      for buffer in buffers {
        bytes.replaceSubrange(place..<place + buffer.count, with: buffer)
        place += buffer.count
      }
    }
  }

  package func punch(offset: UInt64, count: UInt64) -> Bool {
    lock.withLock {
      guard offset < UInt64(bytes.count) else { return true }
      let end = Int(min(UInt64(bytes.count), offset + count))
      let zeros = repeatElement(UInt8(0), count: end - Int(offset))
      bytes.replaceSubrange(Int(offset)..<end, with: zeros)
      return true
    }
  }

  package func synchronize() {}
  package func unlock() {}
}
