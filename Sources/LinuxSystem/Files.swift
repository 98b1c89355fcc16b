import CLinux
import Glibc

/// Whole-file operations.
public enum Files {
  /// The bytes of a file.
  ///
  /// - Throws: kind `other` when it is larger than `limit`.
  public static func read(_ path: String, limit: Int = 1 << 30) throws(SystemError) -> [UInt8] {
    let file = try FileDescriptor.open(path)
    var bytes: [UInt8] = []
    while true {
      let part: [UInt8]
      do {
        part = try file.read(upTo: 1 << 20)
      } catch {
        throw SystemError(code: error.code, "read \(path)")
      }
      if part.isEmpty { return bytes }
      guard bytes.count + part.count <= limit else {
        throw SystemError(code: EFBIG, "read \(path), limit \(limit) bytes")
      }
      bytes += part
    }
  }

  /// Replaces `path` with `bytes` so that a crash at any instant leaves either
  /// the old or the new content: temporary file, fsync, rename, fsync of the
  /// directory.
  ///
  /// - Parameter durably: with `false` only a crash of processes does, not one of the host.
  public static func replace(
    _ path: String, with bytes: some Collection<UInt8>, permissions: UInt32 = 0o600,
    durably: Bool = true
  ) throws(SystemError) {
    let temporary = "\(path).\(getpid()).\(clinux_thread_id()).new"
    do {
      let file = try FileDescriptor.open(
        temporary, [.writeOnly, .create, .truncate], permissions: permissions)
      try file.writeAll(bytes)
      if durably { try file.synchronize() }
    } catch {
      unlink(temporary)
      throw SystemError(code: error.code, "write \(path)")
    }
    do {
      try move(temporary, to: path, durably: durably)
    } catch {
      unlink(temporary)
      throw error
    }
  }

  /// Puts a file, which is durable, in the place of `path`, durably.
  public static func move(
    _ from: String, to path: String, durably: Bool = true
  ) throws(SystemError) {
    guard rename(from, path) == 0 else { throw SystemError(code: errno, "replace \(path)") }
    if durably { try synchronizeDirectory(of: path) }
  }

  private static func synchronizeDirectory(of path: String) throws(SystemError) {
    let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    let descriptor = try FileDescriptor.open(directory.isEmpty ? "/" : directory, [.directory])
    guard fsync(descriptor.raw) == 0 else {
      throw SystemError(code: errno, "flush directory \(directory)")
    }
  }

  public static func exists(_ path: String) -> Bool {
    access(path, F_OK) == 0
  }

  /// Whether a directory is there, also by way of a link.
  public static func isDirectory(_ path: String) -> Bool {
    // SAFETY: stat is a plain C structure that the call fills or leaves.
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  /// Removes a file; one that is not there is no error.
  public static func remove(_ path: String, durably: Bool = false) throws(SystemError) {
    guard unlink(path) == 0 || errno == ENOENT else {
      throw SystemError(code: errno, "remove \(path)")
    }
    if durably { try synchronizeDirectory(of: path) }
  }

  /// Makes one directory; one that is there already is no error.
  public static func makeDirectory(_ path: String, permissions: UInt32 = 0o700)
    throws(SystemError)
  {
    guard mkdir(path, permissions) == 0 || errno == EEXIST else {
      throw SystemError(code: errno, "make directory \(path)")
    }
  }
}
