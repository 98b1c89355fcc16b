import Glibc
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
  private static let mostPieces = 1024
  private let descriptor: FileDescriptor
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
    if buffers.count == 1 { return try descriptor.read(into: buffers[0], offset: offset) }
    let pieces = buffers.map { iovec(iov_base: $0.baseAddress, iov_len: $0.count) }
    return try transfer(pieces, offset, "read", preadv)
  }

  func write(_ buffers: [UnsafeRawBufferPointer], offset: UInt64) throws(SystemError) {
    if buffers.count == 1 { return try descriptor.write(buffers[0], offset: offset) }
    let pieces = buffers.map {
      iovec(iov_base: UnsafeMutableRawPointer(mutating: $0.baseAddress), iov_len: $0.count)
    }
    let total = pieces.reduce(0) { $0 + $1.iov_len }
    guard try transfer(pieces, offset, "write", pwritev) == total else {
      throw SystemError(code: ENOSPC, "write at \(offset)")
    }
  }

  /// - Returns: how much was moved before the end.
  private func transfer(
    _ pieces: [iovec], _ offset: UInt64, _ what: String,
    _ call: (Int32, UnsafePointer<iovec>?, Int32, off_t) -> Int
  ) throws(SystemError) -> Int {
    var rest = pieces[...]
    var done = 0
    while let first = rest.first {
      guard first.iov_len > 0 else {
        rest.removeFirst()
        continue
      }
      // SAFETY: the kernel is given as many pieces as there are, of memory that the caller
      // keeps.
      let moved = rest.prefix(Self.mostPieces).withUnsafeBufferPointer { buffer in
        repeatedly {
          call(descriptor.raw, buffer.baseAddress, Int32(buffer.count), off_t(offset) + off_t(done))
        }
      }
      guard moved >= 0 else { throw SystemError(code: errno, "\(what) at \(offset)") }
      if moved == 0 { break }
      done += moved
      rest.dropBytes(moved)
    }
    return done
  }

  private func repeatedly(_ call: () -> Int) -> Int {
    while true {
      let result = call()
      if result >= 0 || errno != EINTR { return result }
    }
  }

  func punch(offset: UInt64, count: UInt64) throws(SystemError) -> Bool {
    try descriptor.clear(.punchHole, offset: offset, count: count)
  }

  func synchronize() throws(SystemError) { try descriptor.synchronize() }

  func unlock() { try? descriptor.unlock() }
}

extension ArraySlice<iovec> {
  /// Takes what was moved off the front.
  fileprivate mutating func dropBytes(_ count: Int) {
    var left = count
    while left > 0, let first = self.first {
      guard first.iov_len > left else {
        left -= first.iov_len
        removeFirst()
        continue
      }
      self[startIndex] = iovec(
        iov_base: first.iov_base?.advanced(by: left), iov_len: first.iov_len - left)
      return
    }
  }
}
