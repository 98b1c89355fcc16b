import CarrelBase

/// The shell around `Site`: one event at a time is decided, stored, and only then
/// acted upon. What it was doing when it was killed follows from the records.
public actor Broker {
  public struct Settings: Sendable {
    public var throttle: LoginThrottle.Limits
    public var ticketSeconds: Int
    public var memory: MemoryPolicy
    /// With so many desktops that boot, no spare is begun; `nil`: with any number one is.
    public var bootsAtOnce: Int?
    /// End every desktop when the broker stops, as a demonstration wants it.
    public var stopDesktopsAtEnd: Bool

    public init(
      throttle: LoginThrottle.Limits = .init(), ticketSeconds: Int = 120,
      memory: MemoryPolicy = MemoryPolicy(), bootsAtOnce: Int? = nil,
      stopDesktopsAtEnd: Bool = false
    ) {
      self.throttle = throttle
      self.ticketSeconds = ticketSeconds
      self.memory = memory
      self.bootsAtOnce = bootsAtOnce
      self.stopDesktopsAtEnd = stopDesktopsAtEnd
    }
  }

  enum Message: Sendable {
    case event(SiteEvent)
    case command(AdminCommand, @Sendable (Result<[Decision], BrokerError>) -> Void)
  }

  let store: any KeyValueStore
  let coding: any RecordCoding
  let launcher: any Launcher
  let authenticator: any Authenticator
  let memory: (any HostMemory)?
  let clock: any BrokerClock
  let failpoints: Failpoints
  let settings: Settings
  private let observe: @Sendable (Decision) -> Void

  private var site: Site
  /// Desktops that are being put together from backups.
  var restoring: Set<DesktopID> = []
  private var revisions: [String: Int64] = [:]
  var connections: [ConnectionID: any ViewerConnection] = [:]
  var throttle: LoginThrottle
  var verifying = 0
  private var lastConnection: UInt64 = 0
  private var ended = false
  /// Events whose decision the store did not take; order is kept.
  private var postponed: [SiteEvent] = []
  private var timer: Task<Void, Never>?

  private let messages: AsyncStream<Message>
  private let inbox: AsyncStream<Message>.Continuation

  /// `observe` is told every decision once it is stored; it must not block. Without
  /// `memory`, as many desktops are started as pools ask for.
  public init(
    store: any KeyValueStore, coding: any RecordCoding, launcher: any Launcher,
    authenticator: any Authenticator, clock: any BrokerClock, settings: Settings = Settings(),
    memory: (any HostMemory)? = nil, failpoints: Failpoints = .none,
    observe: @escaping @Sendable (Decision) -> Void = { _ in }
  ) {
    self.store = store
    self.coding = coding
    self.launcher = launcher
    self.authenticator = authenticator
    self.clock = clock
    self.settings = settings
    self.memory = memory
    site = Site(memory: settings.memory, bootsAtOnce: settings.bootsAtOnce)
    self.failpoints = failpoints
    self.observe = observe
    throttle = LoginThrottle(limits: settings.throttle)
    (messages, inbox) = AsyncStream.makeStream(of: Message.self)
  }

  /// Everything as it is now, for reading.
  public var snapshot: Site { site }

  /// Reads the records. Once, before `run`.
  public func load() async throws(StoreError) {
    var loaded = Site(memory: settings.memory, bootsAtOnce: settings.bootsAtOnce)
    for value in try await store.list(prefix: "").values {
      try loaded.load(value, coding: coding)
      revisions[value.key] = value.revision
    }
    site = loaded
  }

  /// Serves until the task is cancelled or the store is lost to another writer.
  /// Desktops go on running afterwards unless the settings say otherwise.
  public func run() async throws {
    let survivors = try await launcher.survey()
    let exits = launcher.exits
    let progress = launcher.progress
    defer {
      ended = true
      inbox.finish()
      timer?.cancel()
    }
    do {
      try await withThrowingDiscardingTaskGroup { group in
        let inbox = self.inbox
        group.addTask {
          for await exit in exits { inbox.yield(.event(.exited(exit))) }
        }
        group.addTask {
          for await step in progress { inbox.yield(.event(.progressed(step))) }
        }
        if let readings = memory?.readings {
          group.addTask {
            for await reading in readings where await self.heeds(reading) {
              inbox.yield(.event(.memory(reading)))
            }
          }
        }
        try await process(.event(.recovered(survivors)), in: &group)
        for await message in messages {
          try await process(message, in: &group)
        }
        if settings.stopDesktopsAtEnd { await endDesktops() }
        group.cancelAll()
      }
    } catch {
      await refuseCommands(because: error)
      throw error
    }
  }

  /// Nobody is left waiting for an answer.
  private func refuseCommands(because error: any Error) async {
    ended = true
    inbox.finish()
    for await case .command(_, let reply) in messages {
      reply(.failure(BrokerError(.storage, "carreld is shutting down", cause: error)))
    }
  }

  /// Ends `run`. Commands that come later are refused.
  public func stop() {
    ended = true
    inbox.finish()
    timer?.cancel()
  }

  private func heeds(_ reading: MemoryReading) -> Bool { site.heeds(reading) }

  func send(_ event: SiteEvent) {
    inbox.yield(.event(event))
  }

  func makeConnectionID() -> ConnectionID {
    lastConnection += 1
    return ConnectionID(lastConnection)
  }

  /// Does what an administrator asks. Returns when it is decided and stored; what
  /// follows on the host may take longer.
  @discardableResult
  public func perform(_ command: AdminCommand) async throws(BrokerError) -> [Decision] {
    guard !ended else {
      throw BrokerError(.host, "carreld is shutting down: try again once it runs")
    }
    let result = await withCheckedContinuation { continuation in
      let yielded = inbox.yield(.command(command) { continuation.resume(returning: $0) })
      if case .terminated = yielded {
        continuation.resume(
          returning: .failure(BrokerError(.host, "carreld is shutting down: try again later")))
      }
    }
    return try result.get()
  }

  // MARK: One message

  private func process(
    _ message: Message, in group: inout ThrowingDiscardingTaskGroup<any Error>
  ) async throws {
    switch message {
    case .event(let event):
      postponed.append(event)
      try await processPostponed(in: &group)
    case .command(let command, let reply):
      reply(await decide(command, in: &group))
    }
    scheduleTick()
  }

  private func processPostponed(
    in group: inout ThrowingDiscardingTaskGroup<any Error>
  ) async throws {
    while let event = postponed.first {
      var next = site
      let actions = next.handle(event, now: clock.now)
      do {
        try await commit(next)
      } catch  where error.kind == .conflict {
        throw error
      } catch {
        // A viewer's user can be told; everything else must not be forgotten.
        guard case .viewerArrived(let id, _) = event else { return }
        postponed.removeFirst()
        connections[id]?.close(
          telling: "The server cannot record your session. Please tell the administrator.")
        continue
      }
      postponed.removeFirst()
      await act(on: actions, in: &group)
    }
  }

  private func decide(
    _ command: AdminCommand, in group: inout ThrowingDiscardingTaskGroup<any Error>
  ) async -> Result<[Decision], BrokerError> {
    var next = site
    do {
      let actions = try next.perform(command, now: clock.now)
      do {
        try await commit(next)
      } catch {
        throw BrokerError(.storage, "nothing was changed", cause: error)
      }
      await act(on: actions, in: &group)
      return .success(
        actions.compactMap { if case .report(let decision) = $0 { decision } else { nil } })
    } catch let error as BrokerError {
      return .failure(error)
    } catch {
      return .failure(BrokerError(.storage, "nothing was changed", cause: error))
    }
  }

  /// Stores what changed, then makes it the present. Throws with nothing changed.
  private func commit(_ next: Site) async throws(StoreError) {
    let writes = try next.pendingWrites(coding: coding)
    if !writes.isEmpty {
      let comparisons = writes.map {
        StoreTransaction.Comparison(key: $0.key, revision: revisions[$0.key] ?? 0)
      }
      let revision = try await store.commit(
        StoreTransaction(comparisons: comparisons, writes: writes))
      for write in writes {
        switch write {
        case .put(let key, _, _): revisions[key] = revision
        case .delete(let key): revisions[key] = nil
        }
      }
    }
    site = next
    site.markSaved()
    failpoints.hit("broker.decided")
  }

  private func scheduleTick() {
    timer?.cancel()
    var deadline = site.nextDeadline
    if !postponed.isEmpty {
      let soon = clock.now.adding(seconds: 1)
      deadline = deadline.map { min($0, soon) } ?? soon
    }
    guard let deadline, !ended else { return }
    let clock = self.clock
    let inbox = self.inbox
    timer = Task {
      await clock.sleep(until: deadline)
      if !Task.isCancelled { inbox.yield(.event(.tick)) }
    }
  }

  // MARK: Acting

  private func act(
    on actions: [SiteAction], in group: inout ThrowingDiscardingTaskGroup<any Error>
  ) async {
    for action in actions {
      switch action {
      case .identify(let desktop, let identity): await identify(desktop, as: identity)
      case .prioritize(let desktop, let priority):
        // In order, and it does not take long.
        await launcher.prioritize(desktop, as: priority)
      case .setKeyboardLayout(let id, let layout):
        connections[id]?.setKeyboardLayout(layout)
      case .attach(let id, let desktop):
        connections[id]?.attach(displayLink: launcher.displayLink(of: desktop))
      case .detach(let id): connections[id]?.detach()
      case .showStatus(let id, let status):
        connections[id]?.showStatus(status.text, percent: status.percent)
      case .setName(let id, let name): connections[id]?.setName(name)
      case .close(let id, let text): connections[id]?.close(telling: text)
      case .report(let decision): observe(decision)
      case .start, .stop, .discard, .suspend, .revert, .reset, .pressPowerButton, .limitDisk:
        let launcher = self.launcher
        let inbox = self.inbox
        let clock = self.clock
        let observe = self.observe
        let countsBoots = settings.bootsAtOnce != nil
        group.addTask {
          let outcome = await launcher.carryOut(action)
          if let event = outcome.event { inbox.yield(.event(event)) }
          if let (desktop, text) = outcome.complaint {
            observe(
              Decision(time: clock.now, reason: .desktopReset, desktop: desktop, text: text))
          }
          guard countsBoots, case .started(let desktop, let generation) = outcome.event else {
            return
          }
          let kind = await launcher.comeUp(desktop)
          inbox.yield(.event(.cameUp(desktop, generation: generation, kind)))
        }
      }
    }
  }

  /// Waited for, so that nobody sees a desktop that does not know its user. A guest
  /// that cannot be told is used all the same.
  private func identify(_ desktop: DesktopID, as identity: DesktopIdentity) async {
    do {
      try await launcher.identify(desktop, as: identity)
    } catch {
      observe(
        Decision(
          time: clock.now, reason: .desktopUnidentified, user: identity.user, desktop: desktop,
          text: "\(desktop) was not told its user: \(error)"))
    }
  }

  private func endDesktops() async {
    await withDiscardingTaskGroup { group in
      for desktop in site.desktops.values where desktop.power != .off {
        let launcher = self.launcher
        let keeps = site.pools[desktop.pool]?.kind.keepsDesktops ?? true
        group.addTask {
          if keeps {
            try? await launcher.stop(desktop.id, graceSeconds: nil)
          } else {
            try? await launcher.discard(desktop.id)
          }
        }
      }
    }
  }
}

extension StoreTransaction.Write {
  var key: String {
    switch self {
    case .put(let key, _, _): key
    case .delete(let key): key
    }
  }
}

extension Launcher {
  /// Does one action and says what became of it.
  fileprivate func carryOut(
    _ action: SiteAction
  ) async -> (event: SiteEvent?, complaint: (DesktopID, String)?) {
    switch action {
    case .start(let request):
      do {
        try await start(request)
        return (.started(request.desktop, generation: request.generation), nil)
      } catch {
        return (
          .startFailed(request.desktop, generation: request.generation, error.description), nil
        )
      }
    case .stop(let id, let grace):
      return await report(id, .stop, .stopped(id)) { () async throws(LaunchError) in
        try await stop(id, graceSeconds: grace == 0 ? nil : grace)
      }
    case .discard(let id):
      return await report(id, .discard, .discarded(id)) { () async throws(LaunchError) in
        try await discard(id)
      }
    case .suspend(let id):
      return await report(id, .suspend, .suspended(id)) { () async throws(LaunchError) in
        try await suspend(id)
      }
    case .revert(let id, let name):
      do {
        return (.reverted(id, hasMemory: try await revert(id, to: name)), nil)
      } catch {
        return (.operationFailed(id, .revert, error.description), nil)
      }
    case .limitDisk(let id, let generation, let limits):
      do {
        try await limitDisk(id, to: limits)
        return (.limited(id, generation: generation), nil)
      } catch  where error.kind == .notRunning {
        return (.limited(id, generation: generation), nil)
      } catch {
        return (.limitFailed(id, generation: generation, error.description), nil)
      }
    case .reset(let id):
      do { try await reset(id) } catch { return (nil, (id, "\(id): \(error)")) }
    case .pressPowerButton(let id):
      do { try await pressPowerButton(id) } catch { return (nil, (id, "\(id): \(error)")) }
    case .identify, .prioritize, .setKeyboardLayout, .attach, .detach, .showStatus, .setName,
      .close, .report:
      break
    }
    return (nil, nil)
  }

  private func report(
    _ id: DesktopID, _ operation: Desktop.Operation, _ success: SiteEvent,
    _ body: () async throws(LaunchError) -> Void
  ) async -> (event: SiteEvent?, complaint: (DesktopID, String)?) {
    do {
      try await body()
      return (success, nil)
    } catch {
      return (.operationFailed(id, operation, error.description), nil)
    }
  }
}
