import Brokering
import Foundation

/// Files that hold secrets: written whole or not at all, and with their final mode
/// from the first instant.
enum PrivateFile {
  /// The text; `nil` when there is no such file.
  static func read(_ path: String) throws -> String? {
    guard FileManager.default.fileExists(atPath: path) else { return nil }
    do {
      return try String(contentsOfFile: path, encoding: .utf8)
    } catch {
      throw IdentityError(
        .storage, "\(path) cannot be read: check its owner and mode", cause: error)
    }
  }

  /// Failpoints: `NAME.begin`, `NAME.before` (written, not in place), `NAME.after`.
  static func write(
    _ text: String, to path: String, mode: mode_t, failpoints: Failpoints, _ name: String
  ) throws {
    failpoints.hit(name + ".begin")
    // Left behind by a crash in the middle of an earlier write, by nobody else: the
    // directory is ours alone.
    let draft = path + ".new"
    unlink(draft)
    let descriptor = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
    guard descriptor >= 0 else { throw failure(path, "created") }
    let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    do {
      try handle.write(contentsOf: Data(text.utf8))
      try handle.synchronize()
      try handle.close()
    } catch {
      unlink(draft)
      throw IdentityError(
        .storage, "\(path) cannot be written: check the disk's free space", cause: error)
    }
    failpoints.hit(name + ".before")
    guard rename(draft, path) == 0 else {
      defer { unlink(draft) }
      throw failure(path, "put in place")
    }
    failpoints.hit(name + ".after")
  }

  private static func failure(_ path: String, _ operation: String) -> IdentityError {
    let reason = String(cString: strerror(errno))
    return IdentityError(
      .storage, "\(path) cannot be \(operation): \(reason); check its directory's owner and mode")
  }
}
