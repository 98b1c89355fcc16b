import Glibc
import LinuxSystem

/// Gives a desktop a disk of its own: a copy of the image that shares storage where
/// the file system can, and has its holes.
enum DiskCopy {
  /// Copies `source` to `target` by way of `draft`: `target` is whole or not there.
  /// `progress` is told each percent that is reached; if it throws, `target` is not there.
  static func make(
    from source: String, to target: String, draft: String,
    progress: (Int) throws(SystemError) -> Void
  ) throws(SystemError) {
    do {
      let image = try FileDescriptor.open(source)
      let copy = try FileDescriptor.open(draft, [.writable, .create, .truncate])
      let size = try image.size()
      var told = 0
      try progress(told)
      try image.copySparse(to: copy, size: size) { done throws(SystemError) in
        let percent = Int(done / max(1, size / 100))
        guard percent > told else { return }
        told = min(100, percent)
        try progress(told)
      }
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
