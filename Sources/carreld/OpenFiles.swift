import Foundation

/// How many files this process may have open.
enum OpenFiles {
  /// Takes all that the host allows: each viewer needs five, and the usual limit of
  /// 1024 is one for programs that wait with select(2). Returns what holds now.
  static func raiseLimit() -> rlim_t {
    var limit = rlimit()
    // SAFETY: getrlimit fills the structure given or fails; setrlimit reads it.
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 0 }
    let before = limit.rlim_cur
    limit.rlim_cur = limit.rlim_max
    return setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
      ? limit.rlim_cur : before
  }
}
