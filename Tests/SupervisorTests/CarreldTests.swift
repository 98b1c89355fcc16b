import Glibc
import LinuxSystem
import TestSupport
import Testing

@Suite("carreld's directories, where it is told none", .needsRoot, .needs("setpriv"), .serialized)
struct CarreldTests {
  /// Somebody without a session and without a directory in /run.
  private static let user = 60_321
  private var runtime: String { "/tmp/carrel-\(Self.user)" }

  private func carreld(_ directory: TemporaryDirectory) throws -> LoggedProcess {
    guard chown(directory.path, uid_t(Self.user), gid_t(Self.user)) == 0 else {
      throw SystemError(code: errno, "give \(directory.path) away")
    }
    return try LoggedProcess(
      "/usr/bin/setpriv",
      [
        "--reuid=\(Self.user)", "--regid=\(Self.user)", "--clear-groups",
        Programs.built("carreld"), "--simulate", "--state-directory", directory.path("state"),
      ], environment: ["PATH": "/usr/bin:/bin", "HOME": directory.path])
  }

  private func remove() throws {
    _ = try ChildProcess(.init("/bin/rm", ["-rf", runtime])).wait()
  }

  @Test("sockets are in a directory of /tmp that is the user's own, and closed to others")
  func temporary() async throws {
    try remove()
    let directory = try TemporaryDirectory()
    let daemon = try carreld(directory)
    let listens = try await offPool { daemon.says("\(runtime)/control.sock") }
    #expect(listens, "\(daemon.text)")
    var status = stat()
    #expect(lstat(runtime, &status) == 0)
    #expect(status.st_uid == Self.user && status.st_mode & 0o7777 == 0o700)
    try daemon.handle.send(.terminate)
    #expect(try await offPool { try daemon.wait() } == .exited(0))
    try remove()
  }

  @Test("one that somebody else made there is not used", arguments: ["directory", "link"])
  func foreign(kind: String) async throws {
    try remove()
    let directory = try TemporaryDirectory()
    if kind == "link" {
      #expect(symlink(directory.path, runtime) == 0)
    } else {
      try Files.makeDirectory(runtime, permissions: 0o777)
    }
    let daemon = try carreld(directory)
    #expect(try await offPool { try daemon.wait() } == .exited(1))
    #expect(daemon.text.contains(runtime), "\(daemon.text)")
    try remove()
  }
}
