/// How many desktops there are.
extension Site {
  /// Keeps as many spares as the pool asks for, within its size.
  mutating func sizePools(now: Timestamp) {
    for pool in pools.sorted {
      let all = desktops(of: pool.name)
      if pool.draining {
        for record in all where record.phase != .draining { drain(record, now: now) }
        continue
      }
      let ready = all.filter(\.countsAsSpare)
      let missing = min(pool.spares - ready.count, pool.size - all.count)
      if missing > 0 {
        for _ in 0..<missing where hasRoom(forSpareOf: pool) { addSpare(to: pool.name, now: now) }
      } else {
        // Beyond the spares, or beyond a size that was made smaller.
        let surplus = max(ready.count - pool.spares, min(all.count - pool.size, ready.count))
        removeSurplus(surplus, of: ready, now: now)
      }
    }
  }

  private mutating func addSpare(to pool: PoolName, now: Timestamp) {
    guard let id = createDesktop(in: pool, owner: nil, now: now) else { return }
    note(.desktopCreatedSpare, "\(id) is made as a spare", desktop: id, now: now)
  }

  private mutating func removeSurplus(_ count: Int, of ready: [Desktop], now: Timestamp) {
    guard count > 0 else { return }
    let leastUsefulFirst = ready.sorted {
      ($0.usefulness, $1.number) < ($1.usefulness, $0.number)
    }
    for record in leastUsefulFirst.prefix(count) {
      desktop(record.id, .drained, now: now)
      note(
        .desktopSurplus, "\(record.id) is more than pool \(record.pool) needs", desktop: record.id,
        now: now)
    }
  }

  mutating func drain(_ record: Desktop, now: Timestamp) {
    desktop(record.id, .drained, now: now)
    note(
      .desktopDraining, "\(record.id) is deleted once nobody uses it", user: record.owner,
      desktop: record.id, now: now)
  }

  /// A new record under a number never used before.
  mutating func createDesktop(in name: PoolName, owner: UserName?, now: Timestamp) -> DesktopID? {
    guard var pool = pools[name] else { return nil }
    let record = Desktop(pool: name, number: pool.nextNumber, owner: owner, now: now)
    pool.nextNumber &+= 1
    pools[name] = pool
    desktops[record.id] = record
    return record.id
  }

  /// Pools that were being deleted and have no desktops left.
  mutating func removeEmptyPools() {
    for pool in pools.sorted where pool.draining && desktops(of: pool.name).isEmpty {
      pools[pool.name] = nil
      for entitlement in entitlements.sorted where entitlement.pool == pool.name {
        entitlements[entitlement] = nil
      }
    }
  }
}

extension Desktop {
  /// Nobody's, and ready or on its way. Failed ones count, so that a pool that
  /// cannot start anything does not make one desktop after the other; and so do
  /// those an administrator switched off, so that switching them on again does not
  /// make them one too many.
  var countsAsSpare: Bool {
    guard owner == nil else { return false }
    switch phase {
    case .provisioning, .clean, .dirty, .recycling, .failed: return true
    case .assigned, .connected, .disconnected, .suspended, .draining: return false
    }
  }

  /// What is lost by deleting it.
  fileprivate var usefulness: Int {
    switch (phase, power) {
    case (.failed, _): 0
    case (.dirty, _), (.recycling, .off): 1
    case (_, .off): 2
    case (_, .starting): 3
    case (_, .running): phase == .clean ? 5 : 4
    }
  }
}
