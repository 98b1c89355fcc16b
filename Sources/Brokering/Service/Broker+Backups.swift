/// Backups of desktops, as administrators ask for them.
extension Broker: BackupDesk {
  public func subject(_ desktop: DesktopID) async throws(BrokerError) -> BackupSubject {
    let (record, pool) = try usable(desktop)
    guard record.reverting == nil else {
      throw BrokerError(.conflict, "desktop '\(desktop)' is going back to a snapshot")
    }
    return BackupSubject(desktop: desktop, owner: record.owner, pool: pool)
  }

  /// The desktops that are meant by one name: a desktop, or those of a pool that belong to
  /// users, or all of them.
  public func desktops(
    of scope: BackupScope, all: Bool
  ) throws(BrokerError) -> [DesktopID] {
    switch scope {
    case .desktop(let id): return [try snapshot.find(id).id]
    case .pool(let name):
      let pool = try snapshot.find(name)
      let found = snapshot.desktops(of: pool.name).filter { all || $0.owner != nil }
      guard !found.isEmpty else {
        throw BrokerError(
          .conflict,
          "pool '\(name)' has no desktop \(all ? "" : "that belongs to a user"): there is nothing "
            + "to keep" + (all ? "" : ", but for spares with --all"))
      }
      return found.map(\.id)
    case .all: return snapshot.desktops.sorted.filter { all || $0.owner != nil }.map(\.id)
    }
  }

  /// What somebody meant by a word: a desktop of that name goes before a pool.
  ///
  /// - Parameter mustExist: otherwise what has a number at its end is taken for a desktop that
  ///   is gone, and all else for a pool.
  public func backupScope(
    named name: String, mustExist: Bool
  ) throws(BrokerError) -> BackupScope {
    let desktop = try DesktopID(checking: name)
    let pool = PoolName(rawValue: name)
    if snapshot.desktops[desktop] != nil { return .desktop(desktop) }
    if snapshot.pools[pool] != nil { return .pool(pool) }
    guard mustExist else {
      return desktop.isNumbered ? .desktop(desktop) : .pool(pool)
    }
    throw BrokerError(
      .notFound,
      "there is no desktop and no pool '\(name)': see 'carrel desktop list' and 'carrel pool list'")
  }

  public func place(
    _ contents: BackupContents, _ wish: RestoreWish
  ) async throws(BrokerError) -> RestorePlace {
    guard let owner = wish.owner ?? contents.owner else {
      throw BrokerError(
        .invalid,
        "the backup of '\(contents.desktop)' belongs to nobody: say whose it becomes "
          + "with --owner")
    }
    let site = snapshot
    guard let name = wish.desktop?.pool ?? wish.pool ?? contents.desktop.pool else {
      throw BrokerError(.invalid, "say which pool it goes to with --pool")
    }
    let pool = try site.find(name)
    try site.checkOwner(site.find(owner).name, in: name)
    guard contents.hasDisk == pool.hasDisks else {
      throw BrokerError(
        .conflict,
        "the backup \(contents.hasDisk ? "has a disk" : "has no disk"), and desktops of pool "
          + "'\(name)' \(pool.hasDisks ? "have one" : "have none"): name another with --pool")
    }
    let number = try number(of: contents, wish, in: pool)
    let place = RestorePlace(pool: pool, number: number, owner: owner)
    restoring.insert(place.desktop)
    do {
      try await perform(.reserveNumber(name, number))
    } catch {
      restoring.remove(place.desktop)
      throw error
    }
    return place
  }

  private func number(
    of contents: BackupContents, _ wish: RestoreWish, in pool: Pool
  ) throws(BrokerError) -> UInt64 {
    func isFree(_ id: DesktopID) -> Bool { snapshot.desktops[id] == nil && !restoring.contains(id) }
    if let wanted = wish.desktop {
      guard let number = UInt64(wanted.number),
        DesktopID(pool: pool.name, number: number) == wanted
      else {
        throw BrokerError(
          .invalid, "'\(wanted)' is no desktop's name: that is its pool, '-' and a number")
      }
      guard isFree(wanted) else {
        throw BrokerError(
          .exists, "there is a desktop '\(wanted)' already: leave out --as, or name another")
      }
      return number
    }
    if contents.desktop.pool == pool.name, isFree(contents.desktop),
      let number = UInt64(contents.desktop.number),
      DesktopID(pool: pool.name, number: number) == contents.desktop
    {
      return number
    }
    var next = pool.nextNumber
    while !isFree(DesktopID(pool: pool.name, number: next)) { next &+= 1 }
    return next
  }

  public func settle(_ place: RestorePlace, hasMemory: Bool) async throws(BrokerError) {
    try await perform(
      .restoreDesktop(place.pool.name, place.number, place.owner, saved: hasMemory))
    restoring.remove(place.desktop)
  }

  public func way(to desktop: DesktopID) async -> DesktopWay? { snapshot.way(to: desktop) }

  public func leave(_ place: RestorePlace) async { restoring.remove(place.desktop) }

  public func machine(of pool: PoolName) async -> TemplateMachine? {
    snapshot.pools[pool].map(TemplateMachine.init(of:))
  }

  /// What somebody meant to export: a desktop, or a template by its pool (`office`) or by its
  /// own name (`office@3`), of a pool that may be gone.
  public func exportWork(of name: String, to file: String) throws(BrokerError) -> BackupWork {
    let parts = name.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2 {
      guard let generation = UInt64(parts[1]) else {
        throw BrokerError(
          .invalid, "'\(name)' is no template's name: that is its pool, '@' and a number")
      }
      return .exportTemplate(
        try PoolName(checking: String(parts[0])), generation: generation, file: file)
    }
    switch try backupScope(named: name, mustExist: true) {
    case .desktop(let id): return .export(id, file: file)
    case .pool(let pool): return .exportTemplate(pool, generation: nil, file: file)
    case .all: throw BrokerError(.invalid, "say what is to be exported")
    }
  }
}
