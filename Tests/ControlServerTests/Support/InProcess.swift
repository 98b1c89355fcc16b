import Brokering
import ControlAPI
import ControlClient
import ControlServer
import Foundation
import LinuxSystem
import Logging
import Store
import Synchronization
import TestSupport

/// Broker and control API in this process, for what needs a viewer: the viewer is
/// the test's, the store and the socket are real.
struct InProcess: Sendable {
  let directory: TemporaryDirectory
  let broker: Broker
  let server: ControlServer
  let library = TestLibrary()
  let templates = TestTemplates()
  let backups = TestBackups()
  let agent = TestAgent()

  /// `ready` holds up every start of a desktop, which tells of `step`, until it returns;
  /// `picture` is what desktops show, if they answer when asked.
  init(
    ready: @escaping @Sendable () async -> Void = {}, step: StartProgress.Step? = nil,
    picture: [UInt8]? = nil,
    memory: MemoryReading? = nil, obstacle: @escaping @Sendable () async -> String? = { nil }
  ) throws {
    directory = try TemporaryDirectory()
    broker = Broker(
      store: try SQLiteStore(path: directory.path("db")), coding: JSONRecordCoding(),
      launcher: ReadyLauncher(ready: ready, step: step, picture: picture, agent: agent),
      authenticator: NoAuthenticator(),
      clock: HostClock(), memory: memory.map { SteadyMemory(reading: $0) })
    server = ControlServer(
      broker: broker, socketPath: directory.path("control.sock"),
      surroundings: .init(
        version: "test", started: WireTime(milliseconds: 0), gateway: { (["vnc://here"], "AB:CD") },
        doctor: { DoctorDocument(checks: []) }, datastore: directory.path,
        library: library, templates: templates, backups: backups,
        obstacle: obstacle),
      logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
  }

  /// Serves while `body` runs.
  func serving(_ body: (ControlClient) async throws -> Void) async throws {
    try await broker.load()
    try await withThrowingTaskGroup { group in
      group.addTask { try await broker.run() }
      group.addTask { try await server.run() }
      let client = ControlClient(socketPath: directory.path("control.sock"))
      // Between its name and its first connection there is a moment in which it refuses.
      while (try? UnixSocket.connect(to: client.socketPath, kind: .stream)) == nil {
        await Task.yield()
      }
      defer { group.cancelAll() }
      try await body(client)
      // NIO does not bear to be ended with connections that were accepted and not taken yet;
      // those before this one are.
      _ = try await client.bytes(APIPath("status"))
      await broker.stop()
    }
  }
}

/// Runs something that blocks on a thread of its own: Swift's task pool has as many
/// threads as the host has cores.
@discardableResult
func aside<Value: Sendable>(
  _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    Thread.detachNewThread { continuation.resume(with: Result(catching: body)) }
  }
}

/// Bytes of HTTP as a client that knows none sends them.
enum RawExchange {
  /// Everything that is answered until the server closes its side.
  static func send(_ text: String, to path: String) async throws -> String {
    let socket = try UnixSocket.connect(to: path, kind: .stream)
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty { rest.removeFirst(try socket.send(Array(rest))) }
    return try await aside {
      var answer: [UInt8] = []
      while true {
        let message = try socket.receive()
        if message.isEnd { return String(decoding: answer, as: UTF8.self) }
        answer += message.bytes
      }
    }
  }
}

private final class ReadyLauncher: Launcher {
  let exits: AsyncStream<DesktopExit>
  let progress: AsyncStream<StartProgress>
  private let progressed: AsyncStream<StartProgress>.Continuation
  private let step: StartProgress.Step?
  private let ended: AsyncStream<DesktopExit>.Continuation
  private let generations = Mutex<[DesktopID: UInt64]>([:])
  private let taken = Mutex<[DesktopID: [DesktopSnapshot]]>([:])
  private let ready: @Sendable () async -> Void
  private let picture: [UInt8]?
  private let agent: TestAgent

  init(
    ready: @escaping @Sendable () async -> Void, step: StartProgress.Step?, picture: [UInt8]?,
    agent: TestAgent
  ) {
    self.agent = agent
    self.step = step
    (progress, progressed) = AsyncStream.makeStream()
    self.ready = ready
    self.picture = picture
    (exits, ended) = AsyncStream.makeStream()
  }

  func start(_ request: LaunchRequest) async throws(LaunchError) {
    if let step {
      progressed.yield(
        StartProgress(desktop: request.desktop, generation: request.generation, step: step))
    }
    await ready()
    generations.withLock { $0[request.desktop] = request.generation }
  }

  func stop(_ desktop: DesktopID, graceSeconds: Int?) async throws(LaunchError) {
    guard let generation = generations.withLock({ $0.removeValue(forKey: desktop) }) else { return }
    ended.yield(DesktopExit(desktop: desktop, generation: generation, reason: .stopped))
  }

  func discard(_ desktop: DesktopID) async throws(LaunchError) {}
  func identify(_ desktop: DesktopID, as identity: DesktopIdentity) async throws(LaunchError) {}
  func pressPowerButton(_ desktop: DesktopID) async throws(LaunchError) {}
  func reset(_ desktop: DesktopID) async throws(LaunchError) {}
  func limitDisk(_ desktop: DesktopID, to limits: DiskLimits) async throws(LaunchError) {}
  func prioritize(_ desktop: DesktopID, as priority: MemoryPriority) async {}

  func suspend(_ desktop: DesktopID) async throws(LaunchError) {
    guard let generation = generations.withLock({ $0.removeValue(forKey: desktop) }) else { return }
    ended.yield(DesktopExit(desktop: desktop, generation: generation, reason: .suspended))
  }

  func screenshot(_ desktop: DesktopID) async throws(LaunchError) -> [UInt8] {
    if let picture { return picture }
    throw LaunchError(.unresponsive, "desktop '\(desktop)' does not answer: reset it")
  }
  func ask(
    _ desktop: DesktopID, _ request: AgentRequest
  ) async throws(LaunchError) -> AgentAnswer {
    try agent.answer(request)
  }
  func snapshots(of desktop: DesktopID) async throws(BrokerError) -> [DesktopSnapshot] {
    taken.withLock { $0[desktop] ?? [] }
  }
  func beginSnapshot(
    of desktop: DesktopID, _ request: SnapshotRequest
  ) async throws(BrokerError) {
    var snapshot = DesktopSnapshot(
      name: request.name, state: .ready, parent: nil, created: Timestamp(milliseconds: 0),
      shape: request.shape)
    snapshot.hasMemory = true
    taken.withLock { $0[desktop, default: []].append(snapshot) }
  }
  func deleteSnapshot(_ name: SnapshotName, of desktop: DesktopID) async throws(BrokerError) {
    taken.withLock { $0[desktop]?.removeAll { $0.name == name } }
  }
  func revert(_ desktop: DesktopID, to name: SnapshotName) async throws(LaunchError) -> Bool {
    try await stop(desktop, graceSeconds: nil)
    return true
  }
  func survey() async throws(LaunchError) -> [Survivor] { [] }
  func displayLink(of desktop: DesktopID) -> String { "/run/\(desktop)" }
}

private struct NoAuthenticator: Authenticator {
  func makeVerifier(of password: [UInt8]) async throws -> String { "v" }
  func verify(_ password: [UInt8], against verifier: String?) async -> Bool { false }
  func makeTicketSecret() throws -> String { "abcdefgh" }
  func ticket(_ secret: String, answers challenge: [UInt8], with response: [UInt8]) -> Bool {
    false
  }
}

/// Always has the same left.
private struct SteadyMemory: HostMemory {
  let reading: MemoryReading

  var readings: AsyncStream<MemoryReading> {
    AsyncStream { continuation in
      continuation.yield(reading)
      continuation.finish()
    }
  }
}

private struct HostClock: BrokerClock {
  var now: Timestamp { .now }
  func sleep(until deadline: Timestamp) async {
    let span = deadline.milliseconds - now.milliseconds
    if span > 0 { try? await Task.sleep(for: .milliseconds(span)) }
  }
}

/// A viewer that remembers what it was told last.
final class TestViewer: ViewerConnection {
  let id: ConnectionID
  private let state = Mutex<(link: String?, farewell: String?)>((nil, nil))

  init(_ id: ConnectionID) { self.id = id }

  var link: String? { state.withLock { $0.link } }
  var farewell: String? { state.withLock { $0.farewell } }

  func attach(displayLink path: String) { state.withLock { $0.link = path } }
  func setKeyboardLayout(_ layout: String) {}
  func detach() { state.withLock { $0.link = nil } }
  func showStatus(_ text: String, percent: Int?) {}
  func setName(_ name: String) {}
  func close(telling text: String) { state.withLock { $0.farewell = text } }
}

extension ControlClient {
  /// Runs the `carrel` command against the server that this one talks to.
  func carrel(_ words: [String], in home: Home) async throws -> Home.Result {
    let socket = socketPath
    return try await aside {
      try home.run(
        path: try Home.program("carrel"), words, environment: ["CARREL_SOCKET": socket])
    }
  }
}
