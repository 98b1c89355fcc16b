import Glibc
import LinuxSystem

/// The programs of this build, and what they are tested with.
public enum Programs {
  /// The repository's directory.
  public static let repository: String = {
    let parts = #filePath.split(separator: "/").dropLast(3)
    return "/" + parts.joined(separator: "/")
  }()

  /// A program built together with the running tests.
  public static func built(_ name: String) -> String {
    #if DEBUG
      return "\(repository)/.build/debug/\(name)"
    #else
      return "\(repository)/.build/release/\(name)"
    #endif
  }

  /// The demo desktop's kernel, which `make desktop` builds.
  public static let demoDesktop = "\(repository)/build/demo-desktop/carrel-demo.elf"

  /// Debian's guest agent, which is not on every user's path.
  public static let guestAgent: String? = {
    let path = "/usr/sbin/qemu-ga"
    return access(path, X_OK) == 0 ? path : nil
  }()

  /// A Python with the libraries that tests use (`make deps`).
  public static let python: String? = {
    let path = "\(repository)/build/venv/bin/python"
    return access(path, X_OK) == 0 ? path : nil
  }()
}

extension UnixSocket {
  /// Connects to a socket that `process` is about to listen at.
  ///
  /// - Throws: what the last attempt threw, when the process ended or took longer
  ///   than a minute.
  public static func connect(
    to path: String, kind: Kind, offeredBy process: ProcessHandle
  ) throws(SystemError) -> UnixSocket {
    let deadline = MonotonicClock.now + 60_000_000_000
    while true {
      do {
        return try connect(to: path, kind: kind)
      } catch {
        guard process.isRunning, MonotonicClock.now < deadline else { throw error }
        // There is no event for "a path was bound": wait for the process's end instead.
        var watched = pollfd(fd: process.descriptor.raw, events: Int16(POLLIN), revents: 0)
        poll(&watched, 1, 10)
      }
    }
  }
}
