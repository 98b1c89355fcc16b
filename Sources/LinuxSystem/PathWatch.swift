import Glibc

/// Tells when something may have appeared at a path, by inotify on its directory
/// (on the nearest one that exists, while the directory itself does not).
///
/// A hint, not a fact: whoever is told tries again what failed before.
public final class PathWatch {
  public let path: String
  /// Becomes readable when `drain` is worth calling.
  public let descriptor: FileDescriptor
  private var watch: Int32 = -1

  public init(_ path: String) throws(SystemError) {
    self.path = path
    descriptor = FileDescriptor(
      owning: try check(inotify_init1(Int32(IN_NONBLOCK | IN_CLOEXEC)), "watch \(path)"))
    try renew()
  }

  /// Takes what was reported; returns whether something may have appeared.
  public func drain() -> Bool {
    var something = false
    while let bytes = try? descriptor.read(upTo: 4096), !bytes.isEmpty { something = true }
    if something { try? renew() }
    return something
  }

  /// Watches the nearest directory that exists now.
  private func renew() throws(SystemError) {
    var directory = path
    var missing: String?
    let events = UInt32(
      IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
    while true {
      directory = Self.parent(of: directory)
      let added = inotify_add_watch(descriptor.raw, directory, events)
      if added >= 0 {
        if watch >= 0 && watch != added { inotify_rm_watch(descriptor.raw, watch) }
        watch = added
        // It may have been made between the two looks.
        guard let deeper = missing, access(deeper, F_OK) == 0 else { return }
        (directory, missing) = (path, nil)
        continue
      }
      guard errno == ENOENT && directory != "/" && directory != "." else {
        throw SystemError(code: errno, "watch directory \(directory)")
      }
      missing = directory
    }
  }

  private static func parent(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }
}
