/// What an administrator may ask for.
public enum AdminCommand: Hashable, Sendable {
  case createPool(Pool)
  case updatePool(PoolName, PoolChange)
  case deletePool(PoolName, force: Bool)
  case addUser(UserName, verifier: String?)
  case setVerifier(UserName, String)
  case setDisabled(UserName, Bool)
  case deleteUser(UserName, force: Bool)
  case entitle(UserName, PoolName)
  case revoke(UserName, PoolName)
  case startDesktop(DesktopID)
  case stopDesktop(DesktopID, force: Bool)
  case resetDesktop(DesktopID)
  case suspendDesktop(DesktopID, force: Bool)
  case resumeDesktop(DesktopID)
  case revertDesktop(DesktopID, SnapshotName, force: Bool)
  case releaseDesktop(DesktopID, force: Bool)
  case deleteDesktop(DesktopID, force: Bool)
  case assignDesktop(DesktopID, UserName)
  /// No other desktop gets that number from then on.
  case reserveNumber(PoolName, UInt64)
  case restoreDesktop(PoolName, UInt64, UserName, saved: Bool)
  case endSession(SessionID)
  case issueTicket(UserName, PoolName?, DesktopID? = nil, secret: String, seconds: Int)
  case useTicket(TicketID)
  /// A decision made outside the model, for the user's history.
  case record(Reason, UserName?, DesktopID?, String)
}

/// New values for some of a pool's settings.
public struct PoolChange: Hashable, Sendable {
  public var image: Image?
  public var memoryMiB: Int?
  public var cpus: Int?
  public var diskMiB: Int?
  /// What is left out stays.
  public var firmware: Hardware.Firmware?
  public var video: Hardware.Video?
  public var network: Hardware.Network?
  public var networkQueues: Int?
  public var audio: Hardware.Audio?
  public var usb: Bool?
  public var diskBus: Hardware.DiskBus?
  public var size: Int?
  public var spares: Int?
  public var policies: PoolPolicies?

  public init() {}

  /// The hardware with what is new of it.
  public func applied(to hardware: Hardware) -> Hardware {
    Hardware(
      firmware: firmware ?? hardware.firmware, video: video ?? hardware.video,
      network: network ?? hardware.network,
      networkQueues: networkQueues ?? hardware.networkQueues, audio: audio ?? hardware.audio,
      usb: usb ?? hardware.usb, diskBus: diskBus ?? hardware.diskBus)
  }
}

extension Site {
  public static let mostTickets = 1000

  /// Does what an administrator asks, or says why not; then the site is to be
  /// thrown away by the caller.
  public mutating func perform(
    _ command: AdminCommand, now: Timestamp
  ) throws(BrokerError) -> [SiteAction] {
    actions = []
    switch command {
    case .createPool, .updatePool, .deletePool: try performOnPool(command, now: now)
    case .addUser, .setVerifier, .setDisabled, .deleteUser, .entitle, .revoke:
      try performOnUser(command, now: now)
    case .startDesktop, .stopDesktop, .resetDesktop, .suspendDesktop, .resumeDesktop,
      .revertDesktop, .releaseDesktop, .deleteDesktop, .assignDesktop, .endSession:
      try performOnDesktop(command, now: now)
    case .reserveNumber, .restoreDesktop: try performOnRestored(command, now: now)
    case .issueTicket, .useTicket: try performOnTicket(command, now: now)
    case .record(let reason, let user, let desktop, let text):
      note(reason, text, user: user, desktop: desktop, now: now)
    }
    reconcile(now: now)
    return takeActions()
  }

  // MARK: Pools

  private mutating func performOnPool(
    _ command: AdminCommand, now: Timestamp
  ) throws(BrokerError) {
    switch command {
    case .createPool(let pool):
      try pool.check()
      guard pools[pool.name] == nil else {
        throw BrokerError(
          .exists,
          "there is a pool '\(pool.name)' already: choose another name, or change it "
            + "with 'carrel pool set \(pool.name)'")
      }
      try checkInterfaces(of: pool)
      try checkMemory(of: pool)
      pools[pool.name] = pool
    case .updatePool(let name, let change): try update(find(name), change, now: now)
    case .deletePool(let name, let force):
      var pool = try find(name)
      try deletePool(&pool, force: force, now: now)
    default: break
    }
  }

  private mutating func update(
    _ pool: Pool, _ change: PoolChange, now: Timestamp
  ) throws(BrokerError) {
    guard !pool.draining else {
      throw BrokerError(
        .conflict, "pool '\(pool.name)' is being deleted: wait, then create it anew")
    }
    var updated = pool
    updated.image = change.image ?? pool.image
    updated.memoryMiB = change.memoryMiB ?? pool.memoryMiB
    updated.cpus = change.cpus ?? pool.cpus
    updated.diskMiB = change.diskMiB ?? pool.diskMiB
    if change.image?.kind == .disk || change.image?.kind == .kernel, change.diskMiB == nil {
      updated.diskMiB = nil
    }
    updated.hardware = change.applied(to: pool.hardware)
    // The bus goes with the disk, and queues with the card.
    if !updated.hasDisks, change.diskBus == nil { updated.hardware.diskBus = .ide }
    if updated.hardware.network == .none, change.networkQueues == nil {
      updated.hardware.networkQueues = 1
    }
    updated.size = change.size ?? pool.size
    updated.spares = change.spares ?? pool.spares
    updated.policies = change.policies ?? pool.policies
    // So do limits, unless they are new.
    if !updated.hasDisks, updated.policies.diskLimits == pool.policies.diskLimits {
      updated.policies.diskLimits = DiskLimits()
    }
    try updated.check()
    try checkInterfaces(of: updated)
    if change.memoryMiB != nil || change.spares != nil { try checkMemory(of: updated) }
    pools[pool.name] = updated
    let remake =
      updated.image != pool.image || updated.memoryMiB != pool.memoryMiB
      || updated.cpus != pool.cpus || updated.diskMiB != pool.diskMiB
      || updated.hardware != pool.hardware
    guard remake else { return }
    boots.cloning.remove(pool.name)
    for record in desktops(of: pool.name) where record.countsAsSpare { drain(record, now: now) }
  }

  /// No two desktops may want one TAP interface.
  private func checkInterfaces(of pool: Pool) throws(BrokerError) {
    guard case .tap = pool.hardware.network else { return }
    let other = pools.sorted.first {
      $0.name != pool.name && $0.hardware.network == pool.hardware.network
    }
    guard let other else { return }
    throw BrokerError(
      .conflict,
      "pool '\(other.name)' has the network \(pool.hardware.network), too: give pool "
        + "'\(pool.name)' TAP interfaces of other names")
  }

  private mutating func deletePool(
    _ pool: inout Pool, force: Bool, now: Timestamp
  ) throws(BrokerError) {
    let owned = desktops(of: pool.name).filter { $0.owner != nil }
    if let first = owned.first, let owner = first.owner, !force {
      throw BrokerError(
        .conflict,
        "pool '\(pool.name)' has \(owned.count) desktop(s) that belong to users "
          + "(\(first.id) to \(owner)): release them with 'carrel desktop release', or delete "
          + "everything with 'carrel pool delete \(pool.name) --force'")
    }
    pool.draining = true
    pools[pool.name] = pool
    for record in desktops(of: pool.name) {
      drain(record, now: now)
      endSession(on: record.id, telling: "Your desktop was deleted.", now: now)
    }
    for viewer in viewers.values where viewer.session == nil && viewer.login.pool == pool.name {
      viewers[viewer.id] = nil
      actions.append(.close(viewer.id, "The pool is being deleted."))
    }
  }

  // MARK: Finding

  public func find(_ name: PoolName) throws(BrokerError) -> Pool {
    if let pool = pools[name] { return pool }
    throw BrokerError(.notFound, "there is no pool '\(name)': see 'carrel pool list'")
  }

  public func find(_ name: UserName) throws(BrokerError) -> User {
    if let user = users[name] { return user }
    throw BrokerError(.notFound, "there is no user '\(name)': see 'carrel user list'")
  }

  public func find(_ id: DesktopID) throws(BrokerError) -> Desktop {
    if let desktop = desktops[id] { return desktop }
    throw BrokerError(.notFound, "there is no desktop '\(id)': see 'carrel desktop list'")
  }

  public func find(_ id: SessionID) throws(BrokerError) -> Session {
    if let session = sessions[id] { return session }
    throw BrokerError(.notFound, "there is no session '\(id)': see 'carrel session list'")
  }
}
