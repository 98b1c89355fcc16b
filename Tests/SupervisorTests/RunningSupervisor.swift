import Brokering
import Foundation
import LinuxSystem
import Logging
import Supervisor
import TestSupport
import Testing

/// A supervisor with real programs in a directory of its own.
struct RunningSupervisor {
  let directory: TemporaryDirectory
  let supervisor: Supervisor
  let settings: Supervisor.Settings

  /// - Parameter earlier: one whose directories are taken over, as after a crash.
  init(
    after earlier: RunningSupervisor? = nil, failpoints: Failpoints = .none,
    _ configure: (inout Supervisor.Settings) -> Void = { _ in }
  ) throws {
    directory = try earlier?.directory ?? TemporaryDirectory()
    var settings = Supervisor.Settings(
      runtimeDirectory: directory.path("run"), stateDirectory: directory.path("state"),
      vmm: Programs.built("carrel-vmm"), display: Programs.built("carrel-display"))
    for path in [settings.runtimeDirectory, settings.stateDirectory] {
      try Files.makeDirectory(path)
    }
    configure(&settings)
    var logger = Logger(label: "test") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .critical
    self.settings = settings
    supervisor = try Supervisor(settings: settings, failpoints: failpoints, logger: logger)
  }

  /// A request for a desktop with that guest.
  /// Where `request` puts the guest.
  var guest: String { directory.path("guest.elf") }

  func request(
    _ name: String = "office-1", generation: UInt64 = 1, guest: [UInt8] = SmallGuest.sleeping,
    user: String? = "alice", disk: LaunchRequest.Disk = .fresh, resumes: Bool = false
  ) throws -> LaunchRequest {
    let path = try directory.write(guest, to: "guest.elf")
    return LaunchRequest(
      desktop: DesktopID(rawValue: name), generation: generation,
      image: Image(kind: .kernel, path: path), memoryMiB: 16, cpus: 1, disk: disk,
      resumes: resumes, user: user.map(UserName.init(rawValue:)), keyboardLayout: "en-us")
  }

  func path(_ name: String, of desktop: String = "office-1") -> String {
    "\(settings.runtimeDirectory)/desktops/\(desktop)/\(name)"
  }

  /// The VMM's process, from the file it writes.
  func process(of desktop: String = "office-1") throws -> ProcessHandle {
    struct Identity: Decodable {
      let pid: Int32
      let startTime: UInt64
    }
    let bytes = try Files.read(path("vmm.json", of: desktop))
    let identity = try JSONDecoder().decode(Identity.self, from: Data(bytes))
    return try ProcessHandle(identifier: identity.pid, startTime: identity.startTime)
  }

  /// The next end of a VMM.
  func nextExit() async -> DesktopExit? {
    var iterator = supervisor.exits.makeAsyncIterator()
    return await iterator.next()
  }

  /// The newest generation of a template once none is being made.
  func settledTemplate() async throws -> PoolTemplate {
    while true {
      let last = try #require(try await supervisor.templates().last)
      guard case .making = last.state else { return last }
      try await Task.sleep(for: .milliseconds(20))
    }
  }
}
