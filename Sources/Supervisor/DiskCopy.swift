import Glibc
import LinuxSystem

/// Gives a desktop a disk of its own: a copy of the image that shares storage where
/// the file system can, and has its holes.
enum DiskCopy {
  /// Copies `source` to `target` by way of `draft`: `target` is whole or not there.
  static func make(from source: String, to target: String, draft: String) throws(SystemError) {
    do {
      let image = try FileDescriptor.open(source)
      let copy = try FileDescriptor.open(draft, [.writable, .create, .truncate])
      try image.copySparse(to: copy, size: try image.size())
      try copy.synchronize()
    } catch {
      unlink(draft)
      throw SystemError(code: error.code, "copy \(source) to \(target)")
    }
    guard rename(draft, target) == 0 else {
      let code = errno
      unlink(draft)
      throw SystemError(code: code, "put \(target) in place")
    }
  }
}
