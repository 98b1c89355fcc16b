import Brokering
import Glibc
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("A carreld's claim to its directories", .serialized)
struct SiteClaimTests {
  let directory: TemporaryDirectory
  var runtime: String { directory.path("run") }

  init() throws {
    directory = try TemporaryDirectory()
    for name in ["run", "state", "other"] { try Files.makeDirectory(directory.path(name)) }
  }

  private func claim(_ state: String) async throws -> SiteClaim {
    try await SiteClaim(stateDirectory: directory.path(state), runtimeDirectory: runtime)
  }

  /// A site's second start, while nothing else holds its directories.
  private func claimAndLetGo(_ state: String) async throws { _ = try await claim(state) }

  @Test("neither directory is shared with another that runs")
  func locked() async throws {
    let first = try await claim("state")
    let same = await #expect(throws: SiteClaimError.self) { try await claim("state") }
    #expect(same?.kind == .inUse)
    #expect(same?.description.contains(directory.path("state")) == true)
    #expect(same?.description.contains("process \(getpid())") == true)
    let other = await #expect(throws: SiteClaimError.self) { try await claim("other") }
    #expect(other?.kind == .inUse)
    #expect(other?.description.contains(runtime) == true)
    withExtendedLifetime(first) {}
  }

  @Test("a site finds its own runtime directory again, and takes an empty one over")
  func again() async throws {
    try await claimAndLetGo("state")
    try await claimAndLetGo("state")
    try await claimAndLetGo("other")
    try await claimAndLetGo("state")
  }

  @Test("a mark that cannot be read is named, and not replaced")
  func damaged() async throws {
    try directory.write(Array("{".utf8), to: "state/site.json")
    let error = await #expect(throws: SiteClaimError.self) { try await claim("state") }
    #expect(error?.kind == .storage)
    #expect(error?.description.contains("state/site.json") == true)
    #expect(try directory.read("state/site.json") == Array("{".utf8))
  }

  @Test("desktops of another site are neither adopted nor ended", .needsKVM)
  func foreign() async throws {
    let running = try RunningSupervisor()
    func claim(_ state: String) async throws -> SiteClaim {
      try await SiteClaim(
        stateDirectory: state, runtimeDirectory: running.settings.runtimeDirectory)
    }
    _ = try await claim(running.settings.stateDirectory)
    try await running.supervisor.start(try running.request())
    let process = try running.process()

    let error = await #expect(throws: SiteClaimError.self) {
      try await claim(directory.path("other"))
    }
    #expect(error?.kind == .foreignDesktops)
    #expect(error?.description.contains("office-1") == true)
    #expect(error?.description.contains(running.settings.stateDirectory) == true)
    let daemon = try LoggedProcess(
      Programs.built("carreld"),
      [
        "--simulate", "--state-directory", directory.path("other"), "--runtime-directory",
        running.settings.runtimeDirectory,
      ])
    #expect(try await offPool { try daemon.wait() } == .exited(1))
    #expect(daemon.text.contains("office-1"), "\(daemon.text)")
    #expect(process.isRunning)

    _ = try await claim(running.settings.stateDirectory)
    try await running.supervisor.discard(DesktopID(rawValue: "office-1"))
    _ = try await claim(directory.path("other"))
  }
}
