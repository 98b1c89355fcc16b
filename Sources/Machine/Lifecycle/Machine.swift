import DeviceModel
import Devices
import KVM
import LinuxSystem

/// A virtual PC: built, then started, stopped and told what to do from any
/// thread; what happens to it is told as events.
///
/// Threads: one to each vCPU, one for timers, one that carries out what the guest
/// itself asks for (reset, power-off, crash). None of them outlives `tearDown`.
public final class Machine: @unchecked Sendable {
  // SAFETY: `board` and everything on it are touched only with `board.lock` held,
  // except for what Processor and DisplayOutput document; `configuration` and `links` change
  // in `become` only, before others know of the machine; other state is `Guarded`.
  let board: Board
  public private(set) var configuration: MachineConfiguration
  /// The board, to be watched but not touched.
  package var hardware: AnyObject { board }
  private let gate: RunGate
  private(set) var processors: [Processor] = []
  private var threads: [Thread] = []
  private var links: HostLinks
  /// Held by whoever changes the machine's status: one at a time, in whole steps.
  let transition = Lock()
  private let requests = Guarded<[Request]>([])
  private let state = Guarded(LifecycleState())
  /// Pages of RAM that the machine was to need first, where it went on from a snapshot.
  let formerWorkingSet: DirtyPages?
  /// See `alone`.
  let isBeingSaved = Guarded(false)

  private enum Request: Hashable, Sendable {
    case reset(by: ResetOrigin)
    case end(EndReason)
    case stop(String)
    case tell(MachineEvent)
    case tellOfTray
    case tellOfBalloon
    /// The control thread itself ends.
    case finish

    /// Something to be told, and no more.
    var isNews: Bool {
      switch self {
      case .tell, .tellOfTray, .tellOfBalloon: true
      case .reset, .end, .stop, .finish: false
      }
    }
  }

  private struct LifecycleState {
    var status = MachineStatus.prelaunch
    var stuckReason: String?
    var end: EndReason?
    /// Everybody was told of the end.
    var isOver = false
    var handlers: [(MachineEvent) -> Void] = []
  }

  /// Builds a machine that waits at its first instruction.
  ///
  /// - Parameters:
  ///   - saved: a state to go on from; `nil` for power-on. It must come from a machine of
  ///     the same configuration.
  ///   - identity: which machine it is that goes on.
  /// - Throws: `KVMError`, `MachineError`. Nothing is left behind then.
  public convenience init(
    _ configuration: MachineConfiguration, from saved: SavedMachine? = nil,
    as identity: RestoredIdentity = .same
  ) throws {
    try configuration.validate()
    let boot = try BootMedium(configuration)
    let archive = saved.map { BoardArchive($0.devices) } ?? BoardArchive()
    let core = try BoardCore(
      configuration, try BoardFirmware(configuration, boot), saved: archive,
      stored: saved?.storedMemory)
    try self.init(configuration, boot: boot, core: core, from: saved, archive, as: identity)
  }

  /// - Parameter diskSizes: of the disks of a machine that waits for `become`, which connects
  ///   it with the host; `nil` for one that is itself.
  init(
    _ configuration: MachineConfiguration, boot: BootMedium, core: BoardCore,
    from saved: SavedMachine?, _ archive: BoardArchive, as identity: RestoredIdentity,
    diskSizes: [UInt64]? = nil
  ) throws {
    self.configuration = configuration
    formerWorkingSet = saved?.workingSet
    let links = diskSizes == nil ? try HostLinks(configuration) : HostLinks()
    self.links = links
    let lock = Lock()
    board = try lock.withLock {
      var archive = archive
      if identity != .same { try archive.forgetFirmwareFiles(of: configuration) }
      let board = try Board(
        configuration, lock: lock, boot: boot, core: core, saved: archive,
        livedNanoseconds: saved?.livedNanoseconds ?? 0, diskSizes: diskSizes)
      board.connect(links)
      if let saved {
        try board.fillMemory(from: saved)
        if diskSizes == nil { try board.goOn(from: saved, archive, as: identity) }
      } else {
        try board.prepareBoot()
      }
      return board
    }
    gate = RunGate(lock: lock)
    processors = board.cpus.map { cpu in
      Processor(cpu: cpu, board: board, gate: gate) { [unowned self] in stopFor(.stop($0)) }
    }
    board.control.onReset = { [unowned self] in stopFor(request(for: $0)) }
    board.control.onPowerOff = { [unowned self] in stopFor(.end(.guestShutdown)) }
    board.control.onRefusedSleep = { [unowned self] in
      let type = $0
      requests.change { $0.append(.tell(.sleepRefused(type: type))) }
    }
    board.control.onTrayMove = { [unowned self] in
      // A guest that moves it without pause does not pile up events.
      requests.change { if !$0.contains(.tellOfTray) { $0.append(.tellOfTray) } }
    }
    board.virtio.balloon?.onChange = { [unowned self] in
      requests.change { if !$0.contains(.tellOfBalloon) { $0.append(.tellOfBalloon) } }
    }
    try startThreads()
    if diskSizes == nil { try startLinks() }
  }

  deinit {
    tearDown()
  }

  /// Has a machine that was built without be connected with the host, and be the one of its
  /// make that `configuration` describes. Once, before anybody else knows of it.
  ///
  /// - Throws: `MachineError`, `DiskError`, `KVMError`; it is of no use then.
  func become(
    _ configuration: MachineConfiguration, from saved: SavedMachine, _ archive: BoardArchive,
    as identity: RestoredIdentity
  ) throws {
    links = try HostLinks(configuration)
    let images = try board.drives.open(configuration.disks)
    self.configuration = configuration
    try board.lock.withLock {
      if case .uefi(let path?) = configuration.boot { try board.boot.variables?.keep(in: path) }
      board.drives.connect(images, configuration.disks)
      board.rename(configuration)
      board.connect(links)
      try board.goOn(from: saved, archive, as: identity)
    }
    try startLinks()
  }

  private func startLinks() throws {
    do {
      try links.start(lock: board.lock)
    } catch {
      tearDown()
      throw MachineError(.host, "the machine's threads could not be started", cause: error)
    }
  }

  private func startThreads() throws {
    do {
      try Signal.user1.makeInterrupting()
      let board = Unsynchronized(board)
      threads.append(try Thread(name: "timer") { board.value.clock.run() })
      threads.append(try Thread(name: "virtio") { board.value.virtio.doorbells.run() })
      let machine = Unsynchronized(Weak(self))
      let requests = requests
      threads.append(
        try Thread(name: "control") { Self.carryOut(requests, machine.value) })
      for processor in processors { try processor.start() }
    } catch {
      tearDown()
      throw MachineError(.host, "the machine's threads could not be started", cause: error)
    }
  }

  // MARK: Status and events

  public var status: MachineStatus { state.withLock { $0.status } }

  /// Why it is over; `nil` while it is not.
  public var endReason: EndReason? { state.withLock { $0.end } }

  /// Why the guest cannot go on, while it is paused for that; only a reset helps.
  public var stuckReason: String? { state.withLock { $0.stuckReason } }

  /// Calls `handler` with every event from now on, on the thread that made it
  /// happen; it must not block, nor change the machine's status from within.
  public func onEvent(_ handler: @escaping @Sendable (MachineEvent) -> Void) {
    state.withLock { $0.handlers.append(handler) }
  }

  /// Waits until the machine is over and all were told.
  public func waitForEnd() -> EndReason {
    state.wait(until: { $0.isOver }) { $0.end ?? .quit }
  }

  func announce(_ event: MachineEvent) {
    let handlers = state.withLock { $0.handlers }
    for handler in handlers { handler(event) }
  }

  // MARK: Operation, any thread

  /// Runs guest code, first or again.
  public func resume() throws(MachineError) {
    try transition.withLock { () throws(MachineError) in
      guard status != .ended else { throw Self.isOver }
      guard status != .running else { return }
      if let stuckReason {
        throw MachineError(.state, "the guest cannot go on; reset it (\(stuckReason))")
      }
      // Before the first instruction: whoever sees the guest at work finds it running.
      state.change { $0.status = .running }
      board.lock.withLock {
        board.clock.start()
        gate.open()
      }
      announce(.resumed)
    }
  }

  /// Stops guest code and the guest's time. Nothing of the machine changes then,
  /// but for transfers already under way and what is done to it.
  public func pause() throws(MachineError) {
    try transition.withLock { () throws(MachineError) in
      guard status != .ended else { throw Self.isOver }
      guard status == .running else { return }
      park()
      state.change { $0.status = .paused }
      announce(.paused)
    }
  }

  /// As the reset button. A guest that could not go on starts anew by it.
  public func reset(by origin: ResetOrigin = .user) throws(MachineError) {
    try transition.withLock { () throws(MachineError) in try reset(for: origin) }
  }

  /// Presses the power button for a moment; the guest decides what it means.
  public func pressPowerButton() throws(MachineError) {
    guard status != .ended else { throw Self.isOver }
    board.lock.withLock { board.power.pressPowerButton() }
    announce(.powerButtonPressed)
  }

  /// Presses the sleep button for a moment; the guest decides what it means. There is no
  /// state to sleep in, but a guest may lock its screen or switch itself off.
  public func pressSleepButton() throws(MachineError) {
    guard status != .ended else { throw Self.isOver }
    board.lock.withLock { board.power.pressSleepButton() }
    announce(.sleepButtonPressed)
  }

  /// Gives the machine another generation identifier and tells the guest, as is due
  /// when it was copied or went back to an earlier state.
  public func changeGeneration(to identifier: MachineUUID = .random()) throws(MachineError) {
    guard status != .ended else { throw Self.isOver }
    board.lock.withLock { board.changeGeneration(to: identifier) }
  }

  /// Ends the machine at once, as pulling the plug.
  public func quit(_ reason: EndReason = .quit) {
    transition.withLock { end(reason) }
  }

  /// A key, or the pointer. Dropped when the guest has no driver for it.
  public func send(_ event: InputEvent) {
    board.lock.withLock { board.deliver(event) }
  }

  /// Presses keys together, and releases them, last first, after the guest lived
  /// so long. Returns at once; keys of several calls come one after another.
  public func press(_ keys: [KeyCode], milliseconds: Int) {
    board.lock.withLock {
      board.keys.press(keys, hold: UInt64(max(0, milliseconds)) &* 1_000_000)
    }
  }

  /// Everything about the machine at this instant; it goes on as it was.
  public func save() throws -> SavedMachine {
    try whileParked { try board.save() }
  }

  /// Carries out `body`, device lock held, while no vCPU runs; the machine goes on as it
  /// was afterwards.
  ///
  /// - Parameter onPark: called before vCPUs are stopped.
  func whileParked<Result>(
    onPark: () -> Void = {}, _ body: () throws -> Result
  ) throws -> Result {
    try transition.withLock {
      guard status != .ended else { throw Self.isOver }
      let wasRunning = status == .running
      onPark()
      park()
      defer {
        if wasRunning, !isStopping {
          board.lock.withLock {
            board.clock.start()
            gate.open()
          }
        }
      }
      try carryOutResets()
      return try board.lock.withLock { try body() }
    }
  }

  /// Ends everything that is still running and waits for the threads. Idempotent;
  /// called by `deinit`.
  public func tearDown() {
    quit()
    requests.change { $0.append(.finish) }
    board.lock.withLock { board.clock.end() }
    board.virtio.doorbells.end()
    for processor in processors { processor.join() }
    for thread in threads { thread.join() }
    threads = []
    board.lock.withLock {
      processors = []
      board.audio.finish()
    }
    links.close()
    board.drives.close()
    board.lock.withLock { board.boot.variables?.synchronize() }
  }

  // MARK: Transitions, `transition` held

  static var isOver: MachineError {
    MachineError(.state, "the machine is over; start another")
  }

  /// Afterwards no vCPU runs, each in a state that can be saved, and time stands.
  private func park() {
    board.lock.withLock {
      gate.close()
      for processor in processors { processor.kick() }
      gate.waitUntilParked()
      board.clock.stop()
    }
  }

  private func reset(for origin: ResetOrigin) throws(MachineError) {
    guard status != .ended else { throw Self.isOver }
    let wasStuck = stuckReason != nil
    let runs = status == .running || wasStuck
    park()
    requests.change { $0.removeAll { if case .stop = $0 { true } else { false } } }
    do {
      try board.lock.withLock { try board.reset() }
    } catch {
      let reason = EndReason.internalError("the machine could not be reset: \(error)")
      end(reason)
      throw MachineError(.host, reason.description)
    }
    announce(.reset(origin))
    guard runs else { return }
    state.change {
      $0.status = .running
      $0.stuckReason = nil
    }
    board.lock.withLock {
      board.clock.start()
      gate.open()
    }
    if wasStuck { announce(.resumed) }
  }

  private func stopStuck(_ reason: String) {
    guard status == .running || status == .paused, stuckReason == nil else { return }
    park()
    state.change {
      $0.status = .paused
      $0.stuckReason = reason
    }
    announce(.stuck(reason))
    if configuration.endsWhenStuck { end(.internalError(reason)) }
  }

  private func end(_ reason: EndReason) {
    guard status != .ended else { return }
    park()
    board.lock.withLock { gate.end() }
    state.change {
      $0.status = .ended
      $0.end = reason
    }
    announce(.ended(reason))
    state.change { $0.isOver = true }
  }

  // MARK: What the guest asks for

  private func request(for cause: ResetCause) -> Request {
    guard configuration.endsOnReset else { return .reset(by: .guest(cause.rawValue)) }
    return .end(cause == .tripleFault ? .tripleFault : .guestReset(cause.rawValue))
  }

  /// On a vCPU thread, device lock held: stops guest code at once and leaves the
  /// rest to the control thread.
  private func stopFor(_ request: Request) {
    gate.close()
    for processor in processors { processor.kick() }
    requests.change { $0.append(request) }
  }

  /// The control thread. It keeps the machine alive only while it does something
  /// to it, and may so come to be the one that tears it down.
  private static func carryOut(_ requests: Guarded<[Request]>, _ machine: Weak<Machine>) {
    while !requests.wait(until: { !$0.isEmpty }, { $0.first == .finish }) {
      if let machine = machine.object {
        machine.carryOutNext()
      } else {
        _ = requests.change { $0.removeFirst() }
      }
    }
  }

  /// Takes the request off the list with its effect in sight of nobody else: whoever
  /// saves the machine finds either.
  private func carryOutNext() {
    transition.withLock {
      switch takeRequest() {
      case .reset(let origin): try? reset(for: origin)
      case .end(let reason): end(reason)
      case .stop(let reason): stopStuck(reason)
      case .tell(let event): announce(event)
      case .tellOfTray: tellOfTray()
      case .tellOfBalloon: tellOfBalloon()
      case .finish, nil: break
      }
    }
  }

  private func takeRequest() -> Request? {
    var taken: Request?
    requests.change { requests in
      guard let first = requests.first, first != .finish else { return }
      taken = requests.removeFirst()
    }
    return taken
  }

  /// vCPUs parked: a reset that the guest asked for is not part of any state, so it comes
  /// before whatever is done to the machine now.
  private func carryOutResets() throws {
    var pending: [ResetOrigin] = []
    requests.change { requests in
      requests.removeAll {
        guard case .reset(let origin) = $0 else { return false }
        pending.append(origin)
        return true
      }
    }
    for origin in pending {
      try board.lock.withLock { try board.reset() }
      announce(.reset(origin))
    }
  }

  /// Whether the guest is about to stop for good.
  private var isStopping: Bool {
    requests.withLock { $0.contains { !$0.isNews } }
  }
}
