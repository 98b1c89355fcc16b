import CLinux
import Glibc

/// A terminal that passes every key on at once and echoes nothing, until it is
/// restored.
public final class RawTerminal: Sendable {
  private let descriptor: FileDescriptor
  private let saved: Guarded<termios?>

  /// - Parameter keepsInterrupt: the interrupt key still sends SIGINT, and output is
  ///   processed as before: for the terminal that this process was started from.
  /// - Returns: `nil` when it is no terminal, or belongs to a job in the foreground
  ///   that this process is not part of.
  public init?(_ descriptor: FileDescriptor, keepsInterrupt: Bool) {
    var mode = termios()
    guard clinux_terminal_make_raw(descriptor.raw, keepsInterrupt ? 1 : 0, &mode) == 1 else {
      return nil
    }
    self.descriptor = descriptor
    saved = Guarded(mode)
  }

  /// Gives the terminal back its mode. Idempotent; called by `deinit`.
  public func restore() {
    saved.withLock { mode in
      guard var before = mode else { return }
      mode = nil
      // The terminal may be gone.
      _ = clinux_terminal_restore(descriptor.raw, &before)
    }
  }

  deinit {
    restore()
  }
}

/// Writes to whatever is at the other end without ever waiting for it.
///
/// The descriptor's own mode stays as it is: other processes may share the open file.
public struct ImpatientOutput: Sendable {
  private enum Way: Sendable {
    /// Takes everything: a file, a disk.
    case plain(FileDescriptor)
    /// An open file of our own that does not block.
    case nonBlocking(FileDescriptor)
    case socket(UnixSocket)
    /// Asked before each byte.
    case asking(FileDescriptor)
  }

  private let way: Way

  public init(_ descriptor: FileDescriptor) {
    // SAFETY: stat is a plain C structure that fstat fills.
    var status = stat()
    let result = fstat(descriptor.raw, &status)
    switch status.st_mode & S_IFMT {
    case S_IFSOCK where result == 0: way = .socket(UnixSocket(descriptor))
    case S_IFIFO where result == 0, S_IFCHR where result == 0:
      let own = try? FileDescriptor.open(
        "/proc/self/fd/\(descriptor.raw)", [.writeOnly, .nonBlocking, .noTerminal])
      way = own.map { .nonBlocking($0) } ?? .asking(descriptor)
    default: way = .plain(descriptor)
    }
  }

  /// - Returns: how many bytes were taken, from the first; 0 when there is no room.
  public func write(_ bytes: [UInt8]) throws(SystemError) -> Int {
    do {
      switch way {
      case .plain(let descriptor), .nonBlocking(let descriptor): return try descriptor.write(bytes)
      case .socket(let socket): return try socket.send(bytes, blocking: false)
      case .asking(let descriptor):
        var count = 0
        while count < bytes.count, Self.isWritable(descriptor) {
          count += try descriptor.write(bytes[count...count])
        }
        return count
      }
    } catch {
      guard error.kind == .wouldBlock else { throw error }
      return 0
    }
  }

  private static func isWritable(_ descriptor: FileDescriptor) -> Bool {
    var watched = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
    return poll(&watched, 1, 0) == 1
  }
}
