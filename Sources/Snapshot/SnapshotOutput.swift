import LinuxSystem

/// Where a snapshot is written before it is in its place. What was written is there after a
/// loss of power once `synchronize` has returned; before, any part of it may be.
package protocol SnapshotOutput: Sendable {
  /// Called from several threads, for different parts.
  func write(_ bytes: UnsafeRawBufferPointer, offset: UInt64) throws(SystemError)

  func synchronize() throws(SystemError)

  /// Puts what was written and synchronized in the place of what was there before; durable
  /// when it returns.
  func place() throws(SystemError)

  /// Removes what was written, which was not put in its place.
  func abandon()
}

/// A file beside the one that it is to be.
struct SnapshotDraft: SnapshotOutput {
  private let path: String
  private let temporary: String
  private let descriptor: FileDescriptor

  init(of path: String) throws(SystemError) {
    self.path = path
    temporary = "\(path).new"
    descriptor = try FileDescriptor.open(temporary, [.writable, .create, .truncate])
  }

  func write(_ bytes: UnsafeRawBufferPointer, offset: UInt64) throws(SystemError) {
    try descriptor.write(bytes, offset: offset)
  }

  func synchronize() throws(SystemError) { try descriptor.synchronize() }

  func place() throws(SystemError) { try Files.move(temporary, to: path) }

  func abandon() { try? Files.remove(temporary) }
}

extension SnapshotOutput {
  func write(_ bytes: [UInt8], offset: UInt64) throws(SystemError) {
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do throws(SystemError) { try write(buffer, offset: offset) } catch { failure = error }
    }
    if let failure { throw failure }
  }
}
