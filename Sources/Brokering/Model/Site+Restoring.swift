/// Desktops that come back from a backup.
extension Site {
  mutating func performOnRestored(_ command: AdminCommand, now: Timestamp) throws(BrokerError) {
    switch command {
    case .reserveNumber(let name, let number):
      var pool = try checkRoom(in: name, number)
      pool.nextNumber = max(pool.nextNumber, number &+ 1)
      pools[name] = pool
    case .restoreDesktop(let name, let number, let owner, let saved):
      let pool = try checkRoom(in: name, number)
      try checkOwner(find(owner).name, in: name)
      let record = Desktop(restoredIn: pool.name, number, owner: owner, saved: saved, now: now)
      desktops[record.id] = record
      note(
        .desktopRestored, "\(record.id) was restored from a backup", user: owner,
        desktop: record.id, now: now)
    default: break
    }
  }

  private func checkRoom(in name: PoolName, _ number: UInt64) throws(BrokerError) -> Pool {
    let pool = try find(name)
    let id = DesktopID(pool: name, number: number)
    guard !pool.draining else {
      throw BrokerError(.conflict, "pool '\(name)' is being deleted")
    }
    guard number > 0, number < .max else {
      throw BrokerError(.invalid, "desktop '\(id)' cannot be: its number begins with 1")
    }
    guard desktops[id] == nil else {
      throw BrokerError(
        .exists, "there is a desktop '\(id)' already: leave out --as, or name another")
    }
    guard desktops(of: name).count < pool.size else {
      throw BrokerError(
        .conflict,
        "pool '\(name)' is full: make it larger with 'carrel pool set \(name) --size', or name "
          + "another with --pool")
    }
    return pool
  }

  func checkOwner(_ user: UserName, in pool: PoolName) throws(BrokerError) {
    guard isEntitled(user, to: pool) else {
      throw BrokerError(
        .conflict,
        "user '\(user)' is not entitled to pool '\(pool)': 'carrel entitle \(user) \(pool)', or "
          + "name another with --owner")
    }
  }
}

extension Desktop {
  /// One that is off, with what a backup has of it on the host.
  ///
  /// - Parameter saved: it is suspended, and goes on where it was.
  init(
    restoredIn pool: PoolName, _ number: UInt64, owner: UserName, saved: Bool, now: Timestamp
  ) {
    self.init(pool: pool, number: number, owner: owner, now: now)
    phase = saved ? .suspended : .assigned
    wanted = saved
    self.saved = saved
    disk = .keep
  }
}
