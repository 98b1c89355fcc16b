import CLinux
import Glibc

extension FileDescriptor {
  /// What fallocate does to a range without changing the file's size.
  public enum Clearing: Sendable {
    /// Lets go of storage; the range reads as zeros.
    case punchHole
    /// Keeps storage; the range reads as zeros.
    case zeroRange

    fileprivate var mode: Int32 {
      let keepSize: Int32 = 0x01
      return switch self {
      case .punchHole: keepSize | 0x02
      case .zeroRange: keepSize | 0x10
      }
    }
  }

  /// Makes a range read as zeros.
  ///
  /// - Returns: `false`, with nothing changed, where the file system or device cannot.
  public func clear(
    _ way: Clearing, offset: UInt64, count: UInt64
  ) throws(SystemError) -> Bool {
    let result = clinux_fallocate(
      raw, way.mode, Int64(clamping: offset), Int64(clamping: count))
    if [EOPNOTSUPP, ENOSYS, EINVAL, ENODEV].contains(-result) { return false }
    try check(result, "clear a range of a file")
    return true
  }

  /// Writes all of `bytes` at `offset`.
  public func write(_ bytes: ArraySlice<UInt8>, offset: UInt64) throws(SystemError) {
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do throws(SystemError) {
        try write(buffer, offset: offset)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }
}

/// The kernel's random numbers.
public enum RandomBytes {
  /// Never blocks once the host has booted; fewer bytes only where the kernel has none.
  public static func make(_ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    // SAFETY: `done` stays below the buffer's count, which bounds each request.
    bytes.withUnsafeMutableBytes { buffer in
      while done < buffer.count {
        let got = clinux_random(buffer.baseAddress?.advanced(by: done), buffer.count - done)
        guard got > 0 else { return }
        done += got
      }
    }
    return Array(bytes.prefix(done))
  }
}
