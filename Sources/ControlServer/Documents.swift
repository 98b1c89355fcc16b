import Brokering
import ControlAPI

/// The model's records as the API's documents.
extension WireTime {
  public init(_ time: Timestamp) { self.init(milliseconds: time.milliseconds) }
}

extension Site {
  func document(of pool: Pool) -> PoolDocument {
    let desktops = desktops(of: pool.name)
    var document = PoolDocument(
      name: pool.name.rawValue, kind: pool.kind.rawValue,
      image: ImageDocument(
        kind: pool.image.kind.rawValue, path: pool.image.path,
        arguments: pool.image.arguments.isEmpty ? nil : pool.image.arguments),
      memoryMiB: pool.memoryMiB, cpus: pool.cpus, diskMiB: pool.diskMiB,
      hardware: HardwareDocument(pool.hardware), size: pool.size, spares: pool.spares,
      policies: PolicyDocument(pool.policies), draining: pool.draining,
      created: WireTime(pool.created), desktops: DesktopCounts(desktops),
      problem: desktops.first { $0.failures > 0 || $0.phase == .failed }?.problem)
    document.waiting = spareWait(of: pool)
    return document
  }

  func document(of desktop: Desktop, displayLink: String) -> DesktopDocument {
    let session = session(on: desktop.id)
    var document = DesktopDocument(
      id: desktop.id.rawValue, pool: desktop.pool.rawValue, phase: desktop.phase.rawValue,
      power: desktop.power.rawValue, owner: desktop.owner?.rawValue,
      session: session?.id.rawValue,
      viewer: session.flatMap { viewer(of: $0.id) }?.login.peer.text, held: desktop.held,
      generation: desktop.generation, failures: desktop.failures, problem: desktop.problem,
      since: WireTime(desktop.since), displayLink: displayLink)
    document.reverting = desktop.reverting?.rawValue
    document.waiting = memoryWait(of: desktop.id) ?? bootWait(of: desktop.id)
    if let step = start(of: desktop.id) {
      (document.step, document.percent) = (step.text, step.percent)
    }
    return document
  }

  func document(of user: User) -> UserDocument {
    UserDocument(
      name: user.name.rawValue, disabled: user.disabled, hasPassword: user.verifier != nil,
      pools: entitlements.sorted.filter { $0.user == user.name }.map(\.pool.rawValue),
      desktops: desktops.sorted.filter { $0.owner == user.name }.map(\.id.rawValue),
      created: WireTime(user.created))
  }

  func document(of session: Session) -> SessionDocument {
    let desktop = desktops[session.desktop]
    return SessionDocument(
      id: session.id.rawValue, user: session.user.rawValue, desktop: session.desktop.rawValue,
      pool: desktop?.pool.rawValue ?? "", state: desktop?.phase.rawValue ?? "", peer: session.peer,
      started: WireTime(session.started), changed: WireTime(session.changed))
  }

  /// What a login would come to now, in the words of its decision.
  func outcome(of login: Login) -> ExplanationDocument.Outcome {
    let placement = placement(of: login)
    let place = login.pool?.rawValue ?? login.desktop?.rawValue
    if isShortOfMemory(for: placement) {
      return .init(
        pool: place, reason: Reason.loginWaitingMemory.rawValue,
        text: "would wait: the host has no memory for another desktop")
    }
    let (reason, text): (Reason, String) =
      switch placement {
      case .existing(let id): (.loginExistingDesktop, "would return to \(id)")
      case .assign(let id, let reason): (reason, "would get \(id)")
      case .create(let pool):
        (.loginStartedDesktop, "would get a new desktop, started in pool \(pool)")
      case .wait(let pool): (.loginWaitingPoolFull, "would wait: pool \(pool) is full")
      case .refuse(let reason, let text): (reason, text)
      }
    return .init(pool: place, reason: reason.rawValue, text: text)
  }
}

extension MemoryDocument {
  init?(_ site: Site) {
    let memory = site.memory
    guard let reading = memory.reading else { return nil }
    self.init(
      state: memory.state.rawValue, totalMiB: reading.totalMiB,
      availableMiB: reading.availableMiB, promisedMiB: site.promisedMiB,
      limitMiB: memory.limitMiB, reserveMiB: memory.reserveMiB)
  }
}

extension DesktopCounts {
  init(_ desktops: [Desktop]) {
    func count(_ phases: Desktop.Phase...) -> Int {
      desktops.count { phases.contains($0.phase) }
    }
    self.init(
      total: desktops.count, clean: desktops.count { $0.phase == .clean && $0.power == .running },
      assigned: desktops.count { $0.owner != nil }, connected: count(.connected),
      preparing: count(.provisioning, .dirty, .recycling), failed: count(.failed))
  }
}

extension DecisionDocument {
  init(_ decision: Decision) {
    self.init(
      time: WireTime(decision.time), reason: decision.reason.rawValue,
      user: decision.user?.rawValue, desktop: decision.desktop?.rawValue, text: decision.text)
  }
}

extension HardwareDocument {
  init(_ hardware: Hardware) {
    self.init()
    firmware = hardware.firmware.rawValue
    video = hardware.video.description
    network = hardware.network.description
    networkQueues = hardware.networkQueues
    audio = hardware.audio.rawValue
    usb = hardware.usb
    diskBus = hardware.diskBus.rawValue
  }

  /// What it names of a pool's hardware.
  func change(_ change: inout PoolChange) throws(BrokerError) {
    change.firmware = try choice(firmware, "--firmware")
    change.video = try text(
      video, "--video", "std, virtio, virtio,outputs=1 to \(Hardware.Video.mostOutputs)")
    change.network = try text(
      network, "--network",
      "none, user, user,host=on, tap:PREFIX (at most \(Hardware.Network.longestPrefix) letters, "
        + "digits, '-', '_' and '.'; the first a letter, the last no digit)")
    change.networkQueues = networkQueues
    change.audio = try choice(audio, "--audio")
    change.usb = usb
    change.diskBus = try choice(diskBus, "--disk-bus")
  }

  private func text<Value: LosslessStringConvertible>(
    _ text: String?, _ name: String, _ choices: String
  ) throws(BrokerError) -> Value? {
    guard let text else { return nil }
    guard let value = Value(text) else { throw invalid(name, text, [choices]) }
    return value
  }
}

extension PolicyDocument {
  init(_ policies: PoolPolicies) {
    self.init()
    onDisconnect = policies.onDisconnect.rawValue
    disconnectSeconds = policies.disconnectSeconds
    afterCrash = policies.afterCrash.rawValue
    takeover = policies.takeover.rawValue
    keyboardLayout = policies.keyboardLayout
    startAttempts = policies.startAttempts
    stopGraceSeconds = policies.stopGraceSeconds
    let limits = policies.diskLimits
    diskIops = limits.operations ?? 0
    diskIopsBurst = limits.operationsBurst ?? 0
    diskBandwidth = limits.bandwidth ?? 0
    diskBandwidthBurst = limits.bandwidthBurst ?? 0
  }

  /// These policies over `base`.
  func applied(to base: PoolPolicies) throws(BrokerError) -> PoolPolicies {
    var result = base
    result.onDisconnect = try choice(onDisconnect, "--on-disconnect") ?? base.onDisconnect
    result.disconnectSeconds =
      try number(disconnectSeconds, "--disconnect-seconds", from: 0)
      ?? base.disconnectSeconds
    result.afterCrash = try choice(afterCrash, "--after-crash") ?? base.afterCrash
    result.takeover = try choice(takeover, "--takeover") ?? base.takeover
    if let keyboardLayout {
      guard PoolPolicies.keyboardLayouts.contains(keyboardLayout) else {
        throw invalid("--keyboard-layout", keyboardLayout, PoolPolicies.keyboardLayouts)
      }
      result.keyboardLayout = keyboardLayout
    }
    result.startAttempts =
      try number(startAttempts, "--start-attempts", from: 1)
      ?? base.startAttempts
    result.stopGraceSeconds =
      try number(stopGraceSeconds, "--stop-grace", from: 0)
      ?? base.stopGraceSeconds
    result.diskLimits = applied(to: base.diskLimits)
    return result
  }

  /// A burst goes with its limit. What cannot be is for the pool to say.
  private func applied(to base: DiskLimits) -> DiskLimits {
    func limit(_ value: Int?, _ base: Int?) -> Int? { value.map { $0 == 0 ? nil : $0 } ?? base }
    var limits = base
    limits.operations = limit(diskIops, base.operations)
    limits.bandwidth = limit(diskBandwidth, base.bandwidth)
    limits.operationsBurst = limit(
      diskIopsBurst, limits.operations == nil ? nil : base.operationsBurst)
    limits.bandwidthBurst = limit(
      diskBandwidthBurst, limits.bandwidth == nil ? nil : base.bandwidthBurst)
    return limits
  }

  private func number(
    _ value: Int?, _ name: String, from least: Int
  ) throws(BrokerError) -> Int? {
    guard let value else { return nil }
    guard (least...1_000_000).contains(value) else {
      throw BrokerError(.invalid, "\(name) \(value) cannot be: choose \(least) to 1000000")
    }
    return value
  }
}

/// One of an enumeration's values by name, or which there are.
func choice<Choice: RawRepresentable & CaseIterable>(
  _ text: String?, _ name: String
) throws(BrokerError) -> Choice? where Choice.RawValue == String {
  guard let text else { return nil }
  guard let value = Choice(rawValue: text) else {
    throw invalid(name, text, Choice.allCases.map(\.rawValue))
  }
  return value
}

private func invalid(_ name: String, _ value: String, _ choices: [String]) -> BrokerError {
  BrokerError(
    .invalid, "\(name) cannot be '\(value)': choose \(choices.joined(separator: ", "))")
}
