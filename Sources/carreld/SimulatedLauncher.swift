import Brokering
import Foundation

/// Desktops that are only files: for trying out `carrel`, and for tests of the
/// broker that need no VMM. `carreld --simulate` uses it.
///
/// A running desktop is a file with its generation, so that a restarted carreld
/// finds it again; deleting the file from outside is a crash nobody notices.
struct SimulatedLauncher: Launcher {
  let directory: String
  let exits: AsyncStream<DesktopExit>
  private let ended: AsyncStream<DesktopExit>.Continuation
  private let failpoints: Failpoints

  init(directory: String, failpoints: Failpoints) {
    self.directory = directory
    self.failpoints = failpoints
    (exits, ended) = AsyncStream.makeStream()
  }

  private func file(_ desktop: DesktopID) -> String { "\(directory)/\(desktop)" }

  func displayLink(of desktop: DesktopID) -> String { file(desktop) + ".display" }

  func start(_ request: LaunchRequest) async throws(LaunchError) {
    failpoints.hit("launcher.start.before")
    guard access(request.image.path, R_OK) == 0 else {
      throw LaunchError(.image, "image '\(request.image.path)' is gone: put it back")
    }
    do {
      try FileManager.default.createDirectory(
        atPath: directory, withIntermediateDirectories: true)
      try "\(request.generation)".write(
        toFile: file(request.desktop), atomically: true, encoding: .utf8)
    } catch {
      throw LaunchError(.noSpace, "\(file(request.desktop)) cannot be written", cause: error)
    }
    failpoints.hit("launcher.start.after")
  }

  func stop(_ desktop: DesktopID, graceSeconds: Int?) async throws(LaunchError) {
    guard let generation = generation(of: desktop) else { return }
    try? FileManager.default.removeItem(atPath: file(desktop))
    ended.yield(DesktopExit(desktop: desktop, generation: generation, reason: .stopped))
  }

  func discard(_ desktop: DesktopID) async throws(LaunchError) {
    failpoints.hit("launcher.discard")
    try await stop(desktop, graceSeconds: nil)
  }

  func pressPowerButton(_ desktop: DesktopID) async throws(LaunchError) {
    guard let generation = generation(of: desktop) else { return }
    try? FileManager.default.removeItem(atPath: file(desktop))
    ended.yield(DesktopExit(desktop: desktop, generation: generation, reason: .guestShutdown))
  }

  func identify(_ desktop: DesktopID, as identity: DesktopIdentity) async throws(LaunchError) {
    try check(desktop)
  }

  func limitDisk(
    _ desktop: DesktopID, to limits: DiskLimits
  ) async throws(LaunchError) {
    try check(desktop)
  }

  func prioritize(_ desktop: DesktopID, as priority: MemoryPriority) async {}

  func reset(_ desktop: DesktopID) async throws(LaunchError) { try check(desktop) }

  func suspend(_ desktop: DesktopID) async throws(LaunchError) {
    guard let generation = generation(of: desktop) else { return }
    try? FileManager.default.removeItem(atPath: file(desktop))
    ended.yield(DesktopExit(desktop: desktop, generation: generation, reason: .suspended))
  }

  /// One grey pixel.
  func screenshot(_ desktop: DesktopID) async throws(LaunchError) -> [UInt8] {
    try check(desktop)
    let base64 =
      "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
    return [UInt8](Data(base64Encoded: base64) ?? Data())
  }

  func ask(
    _ desktop: DesktopID, _ request: AgentRequest
  ) async throws(LaunchError) -> AgentAnswer {
    try check(desktop)
    throw LaunchError(
      .noAgent, "desktop '\(desktop)' is simulated: there is no guest agent in it to ask")
  }

  func snapshots(of desktop: DesktopID) async throws(BrokerError) -> [DesktopSnapshot] { [] }

  func beginSnapshot(
    of desktop: DesktopID, _ request: SnapshotRequest
  ) async throws(BrokerError) {
    throw BrokerError(
      .conflict, "desktop '\(desktop)' is simulated: there is nothing of it to take")
  }

  func deleteSnapshot(
    _ name: SnapshotName, of desktop: DesktopID
  ) async throws(BrokerError) {
    throw BrokerError(.notFound, "desktop '\(desktop)' has no snapshot '\(name)'")
  }

  func revert(
    _ desktop: DesktopID, to name: SnapshotName
  ) async throws(LaunchError) -> Bool {
    throw LaunchError(.startFailed, "desktop '\(desktop)' has no snapshot '\(name)'")
  }

  func survey() async throws(LaunchError) -> [Survivor] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    return names.sorted().compactMap { name in
      let desktop = DesktopID(rawValue: name)
      return generation(of: desktop).map {
        Survivor(desktop: desktop, generation: $0, state: .running)
      }
    }
  }

  private func check(_ desktop: DesktopID) throws(LaunchError) {
    guard generation(of: desktop) != nil else {
      throw LaunchError(.notRunning, "desktop '\(desktop)' is not running")
    }
  }

  private func generation(of desktop: DesktopID) -> UInt64? {
    (try? String(contentsOfFile: file(desktop), encoding: .utf8)).flatMap { UInt64($0) }
  }
}
