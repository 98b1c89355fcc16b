import Brokering
import Glibc
import LinuxSystem

/// Room on the file system of a directory.
enum FreeRoom {
  /// Refuses what there is no room for, before any of it is written.
  static func check(_ needed: UInt64, in directory: String) throws {
    let free = try bytes(in: directory)
    guard needed > free else { return }
    throw BrokerError(
      .storage,
      "there is no room for it: it needs \(text(needed, roundedUp: true)), and \(directory) has "
        + "\(text(free, roundedUp: false)) free: make room there")
  }

  static func bytes(in directory: String) throws(SystemError) -> UInt64 {
    var status = statvfs()
    // SAFETY: statvfs fills the structure given or fails.
    guard statvfs(directory, &status) == 0 else {
      throw SystemError(code: errno, "look for room in \(directory)")
    }
    let (bytes, overflow) = UInt64(status.f_bavail)
      .multipliedReportingOverflow(by: UInt64(status.f_frsize))
    return overflow ? .max : bytes
  }

  private static func text(_ bytes: UInt64, roundedUp: Bool) -> String {
    let (shift, unit): (UInt64, String) = bytes < 10 << 20 ? (10, "KiB") : (20, "MiB")
    let isWhole = bytes & ((1 << shift) - 1) == 0
    return "\((bytes >> shift) + (roundedUp && !isWhole ? 1 : 0)) \(unit)"
  }
}
