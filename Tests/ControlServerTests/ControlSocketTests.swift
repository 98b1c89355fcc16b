import Foundation
import TestSupport
import Testing

@Suite("Where carrel finds carreld")
struct ControlSocketTests {
  private let home: Home

  init() throws { home = try Home() }

  /// As a user of its own, or as who runs the tests if that is not root.
  private func asUser(_ number: UInt32, _ environment: [String: String]) throws -> Home.Result {
    let carrel = try Home.program("carrel")
    guard geteuid() == 0 else {
      return try home.run(path: carrel, ["status"], environment: environment)
    }
    let user = ["--reuid", "\(number)", "--regid", "\(number)", "--clear-groups"]
    return try home.run(
      path: "/usr/bin/setpriv", user + [carrel, "status"], environment: environment)
  }

  @Test("in the user's runtime directory, or in one of the user's own in /tmp", .needs("setpriv"))
  func places() throws {
    let number = geteuid() == 0 ? 63_211 : geteuid()
    let runtime = try asUser(number, ["XDG_RUNTIME_DIR": "/run/user/63211"])
    #expect(runtime.code == 69)
    #expect(runtime.errors.contains("at /run/user/63211/carrel/control.sock: is carreld running?"))
    // Whoever runs the tests may have a carreld there.
    guard geteuid() == 0 else { return }
    let temporary = try asUser(number, [:])
    #expect(temporary.code == 69)
    #expect(temporary.errors.contains("/tmp/carrel-\(number)/control.sock: is carreld running?"))
  }

  @Test("a directory in /tmp that somebody else made is not trusted", .needsRoot)
  func stranger() throws {
    let path = "/tmp/carrel-63212"
    defer { rmdir(path) }
    for (owner, mode) in [(UInt32(0), mode_t(0o700)), (63_212, 0o755)] {
      try #require(mkdir(path, 0o700) == 0 && chown(path, owner, owner) == 0)
      try #require(chmod(path, mode) == 0)
      let result = try asUser(63_212, [:])
      #expect(result.code == 69)
      #expect(result.errors.contains("\(path) is not a directory of yours alone"))
      #expect(result.errors.contains("--socket"))
      rmdir(path)
    }
  }

  @Test("is where carreld puts its socket for a user without a runtime directory", .needsRoot)
  func meets() throws {
    let number: UInt32 = 63_213
    let runtime = "/tmp/carrel-\(number)"
    defer { try? FileManager.default.removeItem(atPath: runtime) }
    let (status, _) = try home.directory.run(
      "chmod 755 . && mkdir -m 700 state && chown \(number) state")
    try #require(status == 0)
    let daemon = try LoggedProcess(
      "/usr/bin/setpriv",
      [
        "--reuid", "\(number)", "--regid", "\(number)", "--clear-groups",
        try Home.program("carreld"), "--simulate", "--state-directory", home.state,
      ], environment: ["PATH": "/usr/bin:/bin"])
    try #require(daemon.says("control API listens"), "\(daemon.text)")
    let result = try asUser(number, [:])
    #expect(result.code == 0, "\(result.errors)")
    #expect(result.output.contains("process \(daemon.handle.identifier)"))
  }
}
