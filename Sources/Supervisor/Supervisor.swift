import Brokering
import LinuxSystem
import Logging
import QMP

/// Starts, watches and ends the VMMs of this host, and finds again those that an
/// earlier `carreld` left running.
public actor Supervisor: Launcher {
  public struct Settings: Sendable {
    public var runtimeDirectory: String
    public var stateDirectory: String
    /// Absolute paths of the programs.
    public var vmm: String
    public var display: String
    /// How display processes read keysyms.
    public var keyboardLayout = "en-us"
    /// For a VMM to accept displays.
    public var startLimit: Duration = .seconds(30)
    /// For a guest that boots to leave the processors to others.
    public var comeUpLimit: Duration = .seconds(20)
    /// For a guest agent to say that it is there, and to answer then. A freeze waits for what
    /// is written to be on the disk.
    public var agentPresenceLimit: Duration = .seconds(10)
    public var agentAnswerLimit: Duration = .seconds(30)
    /// For a VMM to end when told to, before it is killed.
    public var quitLimit: Duration = .seconds(2)
    /// For a VMM to write the guest's memory to a file.
    public var suspendLimit: Duration = .seconds(600)

    public init(
      runtimeDirectory: String, stateDirectory: String, vmm: String, display: String
    ) {
      self.runtimeDirectory = runtimeDirectory
      self.stateDirectory = stateDirectory
      self.vmm = vmm
      self.display = display
    }
  }

  /// One VMM, from the call that starts it until it is gone.
  struct Machine {
    let generation: UInt64
    /// Tells this start from an earlier or later one of the same desktop.
    let token: UInt64
    /// It goes on from where it was suspended.
    var resumes = false
    /// It was cloned, and is to be told who it is.
    var isClone = false
    /// `nil` while its directory is being prepared.
    var process: ProcessHandle?
    var isReady = false
    /// Somebody called `stop` or `discard`: a start under way gives up.
    var isUnwanted = false
    /// Of its start, while that prepares the desktop's disk.
    let interruption = Interruption()
    /// Why it ended, until the start that waits for it has seen it.
    var ended: ExitReason?
  }

  public nonisolated let exits: AsyncStream<DesktopExit>
  public nonisolated let progress: AsyncStream<StartProgress>
  let settings: Settings
  let failpoints: Failpoints
  let logger: Logger
  package nonisolated let watcher: ProcessWatcher
  private let exitsContinuation: AsyncStream<DesktopExit>.Continuation
  private let progressContinuation: AsyncStream<StartProgress>.Continuation
  var machines: [DesktopID: Machine] = [:]
  private var nextToken: UInt64 = 1
  private var departures = Departures()
  /// The snapshot that is being taken of each desktop, and the last that failed.
  var makings: [DesktopID: SnapshotMaking] = [:]
  var failedSnapshots: [DesktopID: DesktopSnapshot] = [:]
  var makingWaiters: [DesktopID: [CheckedContinuation<Void, Never>]] = [:]
  /// Desktops of which a snapshot is being deleted.
  var deletions: Set<DesktopID> = []
  /// Desktops whose saved memories are being swept, which all else waits for.
  var tidyings: [DesktopID: Task<Void, Never>] = [:]
  /// Snapshots being taken of desktops that are off, whose starts wait for it.
  var restings: [DesktopID: Task<Void, Never>] = [:]
  /// The template that is being made of each pool, and the last that failed.
  var templateMakings: [PoolName: TemplateMaking] = [:]
  var failedTemplates: [PoolName: PoolTemplate] = [:]
  /// Pools whose next generation comes from elsewhere.
  var templateImports: Set<PoolName> = []
  /// The processes of templates, and those on their way, by the template's name.
  var templateServers: [PoolName: TemplateServer] = [:]
  var templateStarts: [String: Task<TemplateServer, any Error>] = [:]

  public init(
    settings: Settings, failpoints: Failpoints = .none, logger: Logger
  ) throws(LaunchError) {
    let longest = DesktopDirectory(
      desktop: DesktopID(rawValue: String(repeating: "x", count: DesktopID.longest)),
      runtimeRoot: settings.runtimeDirectory, stateRoot: settings.stateDirectory)
    guard longest.displayLink.utf8.count <= DesktopDirectory.socketPathLimit else {
      throw LaunchError(
        .startFailed,
        "runtime directory \(settings.runtimeDirectory) is too long for sockets in it: choose a "
          + "shorter one")
    }
    self.settings = settings
    self.failpoints = failpoints
    self.logger = logger
    do {
      watcher = try ProcessWatcher()
    } catch {
      throw LaunchError(.startFailed, "processes cannot be watched", cause: error)
    }
    (exits, exitsContinuation) = AsyncStream.makeStream()
    // Old news may be lost when nobody listens.
    (progress, progressContinuation) = AsyncStream.makeStream(
      bufferingPolicy: .bufferingNewest(1000))
  }

  public nonisolated func displayLink(of desktop: DesktopID) -> String {
    directory(of: desktop).displayLink
  }

  nonisolated func directory(of desktop: DesktopID) -> DesktopDirectory {
    DesktopDirectory(
      desktop: desktop, runtimeRoot: settings.runtimeDirectory,
      stateRoot: settings.stateDirectory)
  }
}

// MARK: - Start

extension Supervisor {
  public func start(_ request: LaunchRequest) async throws(LaunchError) {
    let desktop = request.desktop
    if let present = machines[desktop] {
      if present.generation == request.generation, !present.isUnwanted {
        return try await waitUntilReady(desktop, present.token)
      }
      await end(desktop, by: .kill)
    }
    let token = makeToken()
    machines[desktop] = Machine(
      generation: request.generation, token: token, resumes: request.resumes)
    do {
      try await launch(request, token)
      try await waitUntilReady(desktop, token)
    } catch {
      await abandon(desktop, token)
      throw error
    }
    logger.info(
      "desktop started",
      metadata: ["desktop": "\(desktop)", "generation": "\(request.generation)"])
  }

  func makeToken() -> UInt64 {
    defer { nextToken += 1 }
    return nextToken
  }

  private func launch(_ request: LaunchRequest, _ token: UInt64) async throws(LaunchError) {
    await restings[request.desktop]?.value
    await awaitTidying(of: request.desktop)
    let directory = directory(of: request.desktop)
    var launching = Launching(
      request: request, directory: directory, program: settings.vmm, failpoints: failpoints,
      template: await template(for: request),
      interruption: machines[request.desktop]?.interruption ?? Interruption()
    ) { [progressContinuation] step in
      progressContinuation.yield(
        StartProgress(desktop: request.desktop, generation: request.generation, step: step))
    }
    do {
      if launching.template != nil {
        if try await clone(launching, token) { return }
        launching.template = nil
      }
      let disk = try await prepare(launching)
      try checkWanted(request.desktop)
      let child = try await offPool { [launching] in try launching.spawn(with: disk) }
      machines[request.desktop]?.process = child.handle
      setScore(of: child.handle, request)
      do {
        try watcher.watch(child) { [weak self] exit in
          guard let self else { return }
          Task { await self.processEnded(request.desktop, token, exit) }
        }
      } catch {
        // What cannot be watched must not run, and nobody else reaps it.
        try? child.handle.send(.kill)
        _ = try? await offPool { try child.wait() }
        machines[request.desktop]?.ended = .stopped
        throw error
      }
    } catch let error as LaunchError {
      throw error
    } catch {
      throw launching.explain(error)
    }
  }

  /// What takes long of it is given up when the desktop is stopped, or `carreld` is.
  func prepare(_ launching: Launching) async throws -> DesktopDisk? {
    try await withTaskCancellationHandler {
      try await offPool { try launching.prepare() }
    } onCancel: {
      launching.interruption.interrupt()
    }
  }

  func checkWanted(_ desktop: DesktopID) throws(LaunchError) {
    guard machines[desktop]?.isUnwanted == false else {
      throw LaunchError(.startFailed, "desktop '\(desktop)' is not wanted any more")
    }
  }

  private func waitUntilReady(_ desktop: DesktopID, _ token: UInt64) async throws(LaunchError) {
    let deadline = ContinuousClock.now.advanced(by: settings.startLimit)
    let directory = directory(of: desktop)
    while true {
      guard let machine = machines[desktop], machine.token == token, !machine.isUnwanted else {
        throw LaunchError(.startFailed, "desktop '\(desktop)' was stopped while it started")
      }
      if machine.isReady { return }
      if let reason = machine.ended {
        throw LaunchError(
          .startFailed,
          "desktop '\(desktop)' did not \(machine.resumes ? "wake" : "start"): \(reason); see "
            + directory.log
            + (machine.resumes
              ? ", or give its session up with 'carrel desktop stop \(desktop)'" : ""))
      }
      if machine.process != nil, await accepts(directory) {
        failpoints.hit("supervisor.ready")
        machines[desktop]?.isReady = true
        if machine.isClone {
          introduce(desktop)
        } else if machine.resumes {
          setClock(of: desktop)
        }
        continue
      }
      guard ContinuousClock.now < deadline else {
        throw LaunchError(
          .startFailed,
          "desktop '\(desktop)' did not open its display in \(settings.startLimit); see "
            + directory.log)
      }
      // The VMM has no way to tell; its socket appears within tens of milliseconds.
      try? await Task.sleep(for: .milliseconds(10))
    }
  }

  private func accepts(_ directory: DesktopDirectory) async -> Bool {
    // A socket has its name before it takes connections.
    (try? UnixSocket.connect(to: directory.control, kind: .stream, blocking: false)) != nil
      && (try? UnixSocket.connect(to: directory.displayLink, kind: .packets, blocking: false))
        != nil
  }

  /// Undoes a start, whatever step it reached.
  private func abandon(_ desktop: DesktopID, _ token: UInt64) async {
    guard let machine = machines[desktop], machine.token == token else { return }
    if let process = machine.process, machine.ended == nil {
      try? process.send(.kill)
      await departure(of: desktop, token)
    }
    forget(desktop, token)
  }
}

// MARK: - End

extension Supervisor {
  enum Manner {
    /// The power button and the guest's agent, then time for the guest, then as `quit`.
    case grace(seconds: Int)
    /// Tell the VMM, then as `kill`.
    case quit
    case kill
  }

  public func stop(_ desktop: DesktopID, graceSeconds: Int?) async throws(LaunchError) {
    await end(desktop, by: graceSeconds.map { .grace(seconds: $0) } ?? .quit)
  }

  public func discard(_ desktop: DesktopID) async throws(LaunchError) {
    await end(desktop, by: .kill)
    await awaitMaking(of: desktop)
    await awaitTidying(of: desktop)
    failedSnapshots[desktop] = nil
    let directory = directory(of: desktop)
    failpoints.hit("supervisor.discard")
    do {
      let wasClone = Files.exists(directory.template)
      try await offPool { try directory.delete() }
      if wasClone { await sweepTemplates() }
    } catch {
      throw LaunchError(
        .unresponsive, "desktop '\(desktop)' could not be deleted from disk", cause: error)
    }
  }

  /// Ends the VMM if there is one; returns when it is gone.
  private func end(_ desktop: DesktopID, by manner: Manner) async {
    guard let machine = machines[desktop] else { return }
    let token = machine.token
    machines[desktop]?.isUnwanted = true
    machine.interruption.interrupt()
    failpoints.hit("supervisor.end")
    guard let process = machine.process else { return await departure(of: desktop, token) }
    switch manner {
    case .grace(let seconds):
      await askToShutDown(desktop)
      if (try? await control(desktop, .powerdown)) != nil,
        await departs(desktop, token, within: .seconds(seconds))
      {
        return
      }
      fallthrough
    case .quit:
      if (try? await control(desktop, .quit)) != nil,
        await departs(desktop, token, within: settings.quitLimit)
      {
        return
      }
      fallthrough
    case .kill:
      // One that is gone already has its departure under way.
      try? process.send(.kill)
      await departure(of: desktop, token)
    }
  }

  /// Called once for each process that was watched.
  func processEnded(
    _ desktop: DesktopID, _ token: UInt64, _ exit: ChildProcess.Exit?
  ) {
    guard let machine = machines[desktop], machine.token == token else { return }
    let reason = reason(for: desktop, machine, exit)
    logger.info(
      "desktop ended",
      metadata: [
        "desktop": "\(desktop)", "generation": "\(machine.generation)", "reason": "\(reason)",
      ])
    if machine.isReady {
      forget(desktop, token)
      exitsContinuation.yield(
        DesktopExit(desktop: desktop, generation: machine.generation, reason: reason))
    } else {
      machines[desktop]?.ended = reason
      departures.happened(token)
    }
  }

  private func reason(
    for desktop: DesktopID, _ machine: Machine, _ exit: ChildProcess.Exit?
  ) -> ExitReason {
    if machine.isUnwanted { return .stopped }
    let directory = directory(of: desktop)
    if machine.isReady, directory.isSuspended { return .suspended }
    if let record = directory.load(ExitRecord.self, from: directory.exit) {
      return record.exitReason
    }
    return switch exit {
    case .signalled(let signal): .crashed("the VMM was killed by signal \(signal.number)")
    case .exited(let status): .crashed("the VMM ended with status \(status) and left no record")
    case nil: .crashed("the VMM ended and left no record")
    }
  }

  private func forget(_ desktop: DesktopID, _ token: UInt64) {
    guard machines[desktop]?.token == token else { return }
    machines[desktop] = nil
    tidyMemory(of: desktop)
    departures.happened(token)
  }

  private func isGone(_ desktop: DesktopID, _ token: UInt64) -> Bool {
    machines[desktop]?.token != token || machines[desktop]?.ended != nil
  }

  /// Returns when that VMM is gone.
  private func departure(of desktop: DesktopID, _ token: UInt64) async {
    _ = await departs(desktop, token, within: nil)
  }

  /// Whether that VMM went within the time.
  func departs(
    _ desktop: DesktopID, _ token: UInt64, within limit: Duration?
  ) async -> Bool {
    if isGone(desktop, token) { return true }
    return await withCheckedContinuation { continuation in
      let waiter = departures.wait(for: token, continuation)
      guard let limit else { return }
      Task {
        try? await Task.sleep(for: limit)
        departures.giveUp(waiter)
      }
    }
  }
}

// MARK: - Commands

extension Supervisor {
  /// What stands there already is not written again: viewers come and go. The Wake key
  /// makes a guest that knows of these files read them anew.
  public func identify(_ desktop: DesktopID, as identity: DesktopIdentity)
    async throws(LaunchError)
  {
    try checkRunning(desktop)
    let directory = directory(of: desktop)
    let contents = [
      directory.userFile: Array(identity.user.rawValue.utf8),
      directory.keyboardFile: Array(identity.keyboardLayout.utf8),
    ]
    let isNew: Bool
    do {
      isNew = try await offPool { [failpoints] in
        // Before its user can do anything in it.
        try directory.noteSession()
        let changed = contents.filter { (try? Files.read($0.key)) != $0.value }
        for (path, bytes) in changed {
          failpoints.hit("supervisor.identify.before")
          try Files.replace(path, with: bytes)
          failpoints.hit("supervisor.identify.after")
        }
        return !changed.isEmpty
      }
    } catch {
      throw LaunchError(
        .startFailed, "the name of the user of desktop '\(desktop)' cannot be written",
        cause: error)
    }
    // Nobody waits for a VMM that does not answer: its guest looks again by itself.
    if isNew { Task { try? await command(desktop, .wake) } }
  }

  public func pressPowerButton(_ desktop: DesktopID) async throws(LaunchError) {
    try await command(desktop, .powerdown)
  }

  public func reset(_ desktop: DesktopID) async throws(LaunchError) {
    try await command(desktop, .reset)
  }

  public func screenshot(_ desktop: DesktopID) async throws(LaunchError) -> [UInt8] {
    let path = directory(of: desktop).screenshot
    try await command(desktop, .screenshot(path: path))
    do {
      return try await offPool {
        defer { try? Files.remove(path) }
        return try Files.read(path)
      }
    } catch {
      throw LaunchError(
        .unresponsive, "desktop '\(desktop)' gave no picture: try again", cause: error)
    }
  }

  func machine(of desktop: DesktopID) -> Machine? { machines[desktop] }

  /// Returns when its VMM, if there is one, is gone without having done more.
  func endForGood(_ desktop: DesktopID) async { await end(desktop, by: .kill) }

  /// Of its VMM, if it has one.
  func token(of desktop: DesktopID) -> UInt64? { machines[desktop]?.token }

  func checkRunning(_ desktop: DesktopID) throws(LaunchError) {
    guard machines[desktop]?.process != nil else {
      throw LaunchError(.notRunning, "desktop '\(desktop)' is not running: start it first")
    }
  }

  @discardableResult
  func command(
    _ desktop: DesktopID, _ command: ControlClient.Command
  ) async throws(LaunchError) -> JSON {
    try checkRunning(desktop)
    do {
      return try await control(desktop, command)
    } catch {
      throw LaunchError(
        .unresponsive, "desktop '\(desktop)' does not answer: stop it by force if it stays so",
        cause: error)
    }
  }

  @discardableResult
  private nonisolated func control(
    _ desktop: DesktopID, _ command: ControlClient.Command
  ) async throws -> JSON {
    let client = ControlClient(path: directory(of: desktop).control)
    return try await offPool { try client.perform(command, within: .seconds(5)) }
  }
}
