/// What limits the VMM of a running desktop was told. Not stored: one that ran on while
/// `carreld` was away is told anew.
struct ToldLimits: Hashable, Sendable {
  let generation: UInt64
  /// `nil` until it is known that it has any.
  var limits: DiskLimits?
  /// A call under way: there is one at a time, so that the last one wins.
  var underWay: DiskLimits?
  /// After one that failed.
  var retryAt: Timestamp?
}

extension Site {
  private static let limitRetrySeconds = 10

  /// Has running desktops know what their pool says of their disks.
  mutating func limitDisks(now: Timestamp) {
    toldLimits = toldLimits.filter { desktops[$0.key]?.power ?? .off != .off }
    for record in desktops.sorted where record.power == .running {
      var told = toldLimits[record.id] ?? ToldLimits(generation: record.generation)
      if told.generation != record.generation {
        told = ToldLimits(generation: record.generation)
      }
      guard let pool = pools[record.pool], pool.hasDisks,
        told.limits != pool.policies.diskLimits
      else {
        toldLimits[record.id]?.retryAt = nil
        continue
      }
      guard told.underWay == nil, told.retryAt ?? now <= now else { continue }
      let limits = pool.policies.diskLimits
      told.underWay = limits
      toldLimits[record.id] = told
      actions.append(.limitDisk(record.id, generation: record.generation, limits))
    }
  }

  /// A start under way has its pool's limits of now.
  mutating func startsLimited(_ request: LaunchRequest) {
    toldLimits[request.desktop] = ToldLimits(
      generation: request.generation, limits: request.diskLimits)
  }

  mutating func limited(_ id: DesktopID, generation: UInt64) {
    guard var told = toldLimits[id], told.generation == generation else { return }
    told.limits = told.underWay
    told.underWay = nil
    told.retryAt = nil
    toldLimits[id] = told
  }

  /// It is tried again; the first time that it fails is put on record.
  mutating func limitFailed(
    _ id: DesktopID, generation: UInt64, _ text: String, now: Timestamp
  ) {
    guard var told = toldLimits[id], told.generation == generation else { return }
    if told.retryAt == nil {
      note(
        .desktopUnlimited, "the limits of \(id)'s disk could not be changed yet: \(text)",
        user: desktops[id]?.owner, desktop: id, now: now)
    }
    // It may have come to the VMM all the same.
    told.limits = nil
    told.underWay = nil
    told.retryAt = now.adding(seconds: Self.limitRetrySeconds)
    toldLimits[id] = told
  }

  /// When a call that failed is due again.
  var limitDeadlines: [Timestamp] {
    toldLimits.values.compactMap { $0.underWay == nil ? $0.retryAt : nil }
  }
}
