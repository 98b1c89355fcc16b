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

/// How somebody gets to one of their desktops.
public struct DesktopWay: Hashable, Sendable {
  /// What they log in as: `ada`, `ada/office`, `ada/office-7`.
  public let name: String
  /// Which other desktop the user's name alone leads to.
  public let plain: DesktopID?

  public init(name: String, plain: DesktopID? = nil) {
    self.name = name
    self.plain = plain
  }
}

extension Login {
  fileprivate var namesPlace: Bool { pool != nil || desktop != nil }
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
    if let named = ownDesktop(of: login) { return .existing(named) }
    let entitled = entitlements.sorted.filter { $0.user == name }.map(\.pool)
      .filter { !login.namesPlace || login.pool == $0 }
    guard !entitled.isEmpty else {
      let what =
        login.pool.map { "pool \($0)" } ?? login.desktop.map { "desktop \($0)" } ?? "any pool"
      return .refuse(.loginRefusedNotEntitled, "\(name) may not use \(what).")
    }
    if let existing = existingDesktop(of: name, in: entitled) { return .existing(existing) }
    return newDesktop(in: entitled.compactMap { pools[$0] })
  }

  /// The desktop that a login names, unless a pool is meant.
  private func ownDesktop(of login: Login) -> DesktopID? {
    guard let id = login.desktop, let record = desktops[id], record.owner == login.user,
      record.phase != .draining, login.pool.map({ pools[$0] == nil }) ?? true,
      isEntitled(login.user, to: record.pool)
    else { return nil }
    return id
  }

  /// How the owner of a desktop gets to it; `nil` where no login leads there.
  public func way(to id: DesktopID) -> DesktopWay? {
    guard let record = desktops[id], let owner = record.owner else { return nil }
    let here = PeerAddress("")
    let plain = placement(of: Login(user: owner, pool: nil, peer: here))
    if plain == .existing(id) { return DesktopWay(name: owner.rawValue) }
    var other: DesktopID?
    if case .existing(let desktop) = plain { other = desktop }
    let logins = [
      Login(user: owner, pool: record.pool, peer: here),
      Login(
        user: owner, pool: try? PoolName(checking: id.rawValue), desktop: id, peer: here),
    ]
    guard let login = logins.first(where: { placement(of: $0) == .existing(id) }) else {
      return nil
    }
    let place = login.desktop?.rawValue ?? record.pool.rawValue
    return DesktopWay(name: "\(owner)/\(place)", plain: other)
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
