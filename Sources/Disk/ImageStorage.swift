import LinuxSystem

/// What an image's bytes are kept in.
///
/// Called from several threads at once; requests that overlap are ordered by whoever makes
/// them. What was written is durable when a `synchronize` that began later has returned,
/// and before that any part of it may be.
package protocol ImageStorage: AnyObject, Sendable {
  /// Whether what lies between its end and a later write beyond that reads as zeros: so
  /// with files, while devices have the size that they have.
  var growsWithZeros: Bool { get }

  func size() throws(SystemError) -> UInt64

  /// Never makes it smaller.
  func grow(to size: UInt64) throws(SystemError)

  /// Fills the buffers one after another; returns less than their size only at the end.
  func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64)
    throws(SystemError) -> Int

  /// Writes all of the buffers, one after another.
  func write(_ buffers: [UnsafeRawBufferPointer], offset: UInt64) throws(SystemError)

  /// Lets go of a range, which reads as zeros then; `false`, with nothing changed, where that
  /// cannot be done.
  func punch(offset: UInt64, count: UInt64) throws(SystemError) -> Bool

  func synchronize() throws(SystemError)

  /// Others may use it from now on.
  func unlock()
}

extension ImageStorage {
  /// What is beyond the end reads as zeros.
  func readPadded(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64)
    throws(SystemError)
  {
    let count = try read(into: buffers, offset: offset)
    let total = buffers.byteCount
    if count < total { buffers.part(count, total - count).clear() }
  }

  func read(_ count: Int, at offset: UInt64) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeMutableBytes { buffer in
      do throws(SystemError) {
        try readPadded(into: [buffer], offset: offset)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return bytes
  }

  func write(_ bytes: [UInt8], at offset: UInt64) throws(SystemError) {
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do throws(SystemError) {
        try write([buffer], offset: offset)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }
}

/// A file or block device as storage.
final class FileStorage: ImageStorage {
  let descriptor: FileDescriptor
  let growsWithZeros: Bool

  init(_ descriptor: FileDescriptor) {
    self.descriptor = descriptor
    growsWithZeros = descriptor.isRegularFile
  }

  func size() throws(SystemError) -> UInt64 { try descriptor.size() }

  func grow(to size: UInt64) throws(SystemError) {
    if growsWithZeros, try descriptor.size() < size { try descriptor.setSize(size) }
  }

  func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64)
    throws(SystemError) -> Int
  {
    try descriptor.read(into: buffers, offset: offset)
  }

  func write(_ buffers: [UnsafeRawBufferPointer], offset: UInt64) throws(SystemError) {
    try descriptor.write(buffers, offset: offset)
  }

  func punch(offset: UInt64, count: UInt64) throws(SystemError) -> Bool {
    try descriptor.clear(.punchHole, offset: offset, count: count)
  }

  func synchronize() throws(SystemError) { try descriptor.synchronize() }

  func unlock() { try? descriptor.unlock() }
}
