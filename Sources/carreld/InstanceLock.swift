import Foundation

/// Keeps a second carreld out of the same state directory. Held for life; the
/// kernel lets go when the process ends, however it ends.
struct InstanceLock: ~Copyable {
  private let descriptor: Int32

  init(path: String) throws(DaemonError) {
    descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else {
      throw DaemonError(
        .directory,
        "\(path) cannot be opened (\(String(cString: strerror(errno)))): check owner "
          + "and permissions")
    }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
      let holder = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
      close(descriptor)
      throw DaemonError(
        .running,
        "another carreld (process \(holder.isEmpty ? "unknown" : holder)) uses this "
          + "state directory: end it, or name another with --state-directory")
    }
    let text = Array("\(getpid())".utf8)
    ftruncate(descriptor, 0)
    // SAFETY: the buffer outlives the call; a short write costs only the hint.
    _ = text.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
  }

  deinit { close(descriptor) }
}
