import Glibc
import LinuxSystem

/// A kernel's or an initial RAM disk's file. It is read at each start and reset of a machine,
/// which meanwhile does not hold in its memory what the page cache has for all of them.
struct BootFile: Sendable {
  private enum Contents {
    case stored(FileDescriptor, path: String)
    /// Of what cannot be read twice, such as a pipe.
    case held([UInt8])
  }

  private let contents: Contents
  let count: Int

  private static let limit = 1 << 30

  /// - Throws: `SystemError` where it cannot be read, or has more than 1 GiB.
  init(path: String) throws(SystemError) {
    let file = try FileDescriptor.open(path, [.nonBlocking, .noTerminal])
    guard file.isRegularFile else {
      self.init(holding: try Files.read(path, limit: Self.limit))
      return
    }
    let size = try file.size()
    guard size <= UInt64(Self.limit) else {
      throw SystemError(code: EFBIG, "read \(path), limit \(Self.limit) bytes")
    }
    self.init(.stored(file, path: path), Int(size))
  }

  init(holding bytes: [UInt8]) { self.init(.held(bytes), bytes.count) }

  private init(_ contents: Contents, _ count: Int) {
    self.contents = contents
    self.count = count
  }

  /// Fills `target` from a byte of the file on.
  ///
  /// - Throws: kind `image` where it does not have as many any more.
  func read(into target: UnsafeMutableRawBufferPointer, at offset: Int = 0) throws(MachineError) {
    switch contents {
    case .held(let bytes):
      precondition(offset >= 0 && offset + target.count <= bytes.count)
      target.copyBytes(from: bytes[offset..<offset + target.count])
    case .stored(let file, let path):
      do {
        guard try file.read(into: target, offset: UInt64(offset)) < target.count else { return }
      } catch {
        throw MachineError(.image, "\(path) could not be read", cause: error)
      }
      throw MachineError(
        .image, "\(path) has become shorter than the \(count) bytes that it had",
        remedy: "start the machine anew with the whole file")
    }
  }

  /// All of it.
  func bytes() throws(MachineError) -> [UInt8] {
    if case .held(let bytes) = contents { return bytes }
    var bytes = [UInt8](repeating: 0, count: count)
    var problem: MachineError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeMutableBytes { buffer in
      do throws(MachineError) { try read(into: buffer) } catch { problem = error }
    }
    if let problem { throw problem }
    return bytes
  }
}
