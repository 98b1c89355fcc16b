import Glibc
import LinuxSystem

/// A disk of a few hundred KiB, to find out what happens when it is full.
public final class SmallDisk: Sendable {
  private let directory: TemporaryDirectory
  public let path: String

  /// For tests that say `.needsRoot`.
  public init(kibibytes: Int) throws {
    directory = try TemporaryDirectory()
    path = directory.path("disk")
    let commands = "mkdir disk && mount -t tmpfs -o size=\(kibibytes)k none disk"
    let (status, output) = try directory.run(commands)
    guard status == 0 else { throw SmallDiskError(output: output) }
  }

  /// Writes until nothing fits any more.
  public func fill() throws {
    _ = try directory.run("cat /dev/zero > disk/filler 2>/dev/null")
  }

  /// Takes away what `fill` wrote.
  public func empty() throws {
    _ = try directory.run("rm -f disk/filler")
  }

  deinit {
    _ = try? directory.run("umount -l disk")
  }
}

private struct SmallDiskError: Error {
  let output: String
}
