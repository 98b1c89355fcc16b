/// Which desktop a login gets, decided without changing anything, so that
/// `carrel explain` can ask the same question.
public enum Placement: Hashable, Sendable {
  /// The user has this desktop.
  case existing(DesktopID)
  /// This desktop becomes the user's.
  case assign(DesktopID, Reason)
  /// A new desktop in that pool.
  case create(PoolName)
  /// The pool is full: wait for a desktop.
  case wait(PoolName)
  case refuse(Reason, String)
}

extension Site {
  public func placement(of login: Login) -> Placement {
    let name = login.user
    guard let user = users[name] else {
      return .refuse(.loginRefusedUnknownUser, "There is no user \(name).")
    }
    guard !user.disabled else {
      return .refuse(.loginRefusedDisabled, "The account of \(name) is disabled.")
    }
    let entitled = entitlements.sorted.filter { $0.user == name }.map(\.pool)
      .filter { login.pool == nil || login.pool == $0 }
    guard !entitled.isEmpty else {
      let what = login.pool.map { "pool \($0)" } ?? "any pool"
      return .refuse(.loginRefusedNotEntitled, "\(name) may not use \(what).")
    }
    if let existing = existingDesktop(of: name, in: entitled) { return .existing(existing) }
    return newDesktop(in: entitled.compactMap { pools[$0] })
  }

  /// The desktop with the latest session first; then one that is the user's own.
  private func existingDesktop(of user: UserName, in pools: [PoolName]) -> DesktopID? {
    let present = sessions.values.filter { session in
      session.user == user
        && desktops[session.desktop].map { pools.contains($0.pool) && $0.owner == user } ?? false
    }
    if let latest = present.max(by: { ($0.changed, $0.id) < ($1.changed, $1.id) }) {
      return latest.desktop
    }
    return desktops.sorted.first {
      $0.owner == user && pools.contains($0.pool) && $0.phase != .draining
    }?.id
  }

  private func newDesktop(in pools: [Pool]) -> Placement {
    let open = pools.filter { !$0.draining }
    guard !open.isEmpty else {
      return .refuse(.loginRefusedDraining, "The pool is being deleted.")
    }
    for pool in open where pool.kind != .manual {
      if let choice = freeDesktop(in: pool) { return choice }
    }
    if let pool = open.first(where: hasDesktopsThatComeBack) { return .wait(pool.name) }
    return .refuse(
      .loginRefusedNoDesktop, "There is no desktop for you. Please ask the administrator.")
  }

  /// Floating ones do; of the others those that are being reverted.
  private func hasDesktopsThatComeBack(_ pool: Pool) -> Bool {
    switch pool.kind {
    case .floating: true
    case .dedicated: desktops(of: pool.name).contains { $0.countsAsSpare && !$0.held }
    case .manual: false
    }
  }

  private func freeDesktop(in pool: Pool) -> Placement? {
    let all = desktops(of: pool.name)
    let free = all.filter(\.isAssignable)
    if let running = free.first(where: { $0.phase == .clean && $0.power == .running }) {
      return .assign(running.id, .loginCleanSpare)
    }
    // One that has begun is there sooner than one that waits for its turn.
    let hopeful = free.filter { $0.failures == 0 }
    if let starting = hopeful.first(where: { $0.power != .off }) ?? hopeful.first {
      return .assign(starting.id, .loginReservedStarting)
    }
    if all.count < pool.size { return .create(pool.name) }
    return free.first.map { .assign($0.id, .loginReservedStarting) }
  }
}
