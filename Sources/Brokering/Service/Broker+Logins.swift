/// What the gateway asks.
extension Broker: SessionBroker {
  /// Password checks at once: each costs memory and a core for a while.
  static let mostVerifying = 8

  public func authenticate(
    name: String, password: [UInt8], peer: PeerAddress
  ) async -> Result<Login, LoginRefusal> {
    let parts = name.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    // What was typed goes into records and logs as a name or not at all.
    let user = parts.first.flatMap { try? UserName(checking: String($0)) }
    let place = parts.count > 1 ? String(parts[1]) : nil
    let pool = place.flatMap { try? PoolName(checking: $0) }
    let desktop = place.flatMap { try? DesktopID(checking: $0) }.flatMap {
      $0.isNumbered ? $0 : nil
    }
    let subjects = (user.map { [.user($0.rawValue)] } ?? []) + [LoginThrottle.Subject.peer(peer)]
    if let refusal = lockedOut(subjects, user: user) { return .failure(refusal) }
    guard verifying < Self.mostVerifying else {
      return .failure(LoginRefusal(.unavailable, "Too many logins at once. Please try again."))
    }
    verifying += 1
    // A name that nobody can have costs as much as one that nobody has.
    let record = user.flatMap { snapshot.users[$0] }
    let proved = await authenticator.verify(password, against: record?.verifier)
    verifying -= 1
    guard proved, let record else {
      let what = user == nil ? "a name that no user can have" : "wrong password"
      await refuse(subjects, .loginRefusedPassword, user, "\(what) from \(peer)")
      return .failure(LoginRefusal(.wrongPassword, "The name or the password is wrong."))
    }
    throttle.succeeded([.user(record.name.rawValue)])
    guard place == nil || pool != nil || desktop != nil else {
      return .failure(LoginRefusal(.notAllowed, "There is no such pool."))
    }
    return letIn(record, Login(user: record.name, pool: pool, desktop: desktop, peer: peer))
  }

  public func redeemTicket(
    challenge: [UInt8], response: [UInt8], peer: PeerAddress
  ) async -> Result<Login, LoginRefusal> {
    let subjects: [LoginThrottle.Subject] = [.peer(peer)]
    if let refusal = lockedOut(subjects, user: nil) { return .failure(refusal) }
    let now = clock.now
    var found: Ticket?
    // Every ticket is tried, so that time tells nothing.
    for ticket in snapshot.tickets.sorted where ticket.expires > now {
      if authenticator.ticket(ticket.secret, answers: challenge, with: response) {
        found = ticket
      }
    }
    let refusal = LoginRefusal(.noSuchTicket, "The ticket is wrong, used or expired.")
    guard let found else {
      await refuse(subjects, .loginRefusedTicket, nil, "wrong ticket from \(peer)")
      return .failure(refusal)
    }
    do {
      try await perform(.useTicket(found.id))
    } catch {
      return .failure(
        error.kind == .notFound
          ? refusal : LoginRefusal(.unavailable, "The server cannot record the login."))
    }
    guard let record = snapshot.users[found.user] else { return .failure(refusal) }
    return letIn(
      record, Login(user: found.user, pool: found.pool, desktop: found.desktop, peer: peer))
  }

  public func authenticateWithoutPassword(
    user: UserName, peer: PeerAddress
  ) async -> Result<Login, LoginRefusal> {
    guard let record = snapshot.users[user] else {
      return .failure(LoginRefusal(.notAllowed, "There is no user for logins without password."))
    }
    return letIn(record, Login(user: user, pool: nil, peer: peer))
  }

  private func letIn(_ user: User, _ login: Login) -> Result<Login, LoginRefusal> {
    guard !user.disabled else {
      return .failure(LoginRefusal(.disabled, "Your account is disabled."))
    }
    return .success(login)
  }

  private func lockedOut(
    _ subjects: [LoginThrottle.Subject], user: UserName?
  ) -> LoginRefusal? {
    let now = clock.now
    guard let until = throttle.lockedUntil(subjects, now: now) else { return nil }
    let minutes = max(1, (until.milliseconds - now.milliseconds + 59_999) / 60_000)
    return LoginRefusal(
      .lockedOut, "Too many failed logins. Try again in \(minutes) minute(s).")
  }

  /// Counts a failure, records it, and keeps the answer back for a while.
  private func refuse(
    _ subjects: [LoginThrottle.Subject], _ reason: Reason, _ user: UserName?, _ text: String
  ) async {
    throttle.failed(subjects, now: clock.now)
    let delay = throttle.delay(subjects)
    let locked = throttle.lockedUntil(subjects, now: clock.now) != nil
    _ = try? await perform(
      .record(
        locked ? .loginRefusedLockedOut : reason, user, nil, locked ? text + "; locked out" : text)
    )
    await clock.sleep(until: clock.now.adding(milliseconds: delay))
  }

  public func hasLiveTickets() async -> Bool {
    let now = clock.now
    return snapshot.tickets.values.contains { $0.expires > now }
  }

  public func nextConnectionID() async -> ConnectionID { makeConnectionID() }

  public func viewerArrived(_ viewer: any ViewerConnection, login: Login) async {
    connections[viewer.id] = viewer
    send(.viewerArrived(viewer.id, login))
  }

  public func viewerLeft(_ id: ConnectionID, reason: String) async {
    connections[id] = nil
    send(.viewerLeft(id, reason: reason))
  }

  public func viewerRequestedPower(_ id: ConnectionID, _ request: PowerRequest) async {
    send(.powerRequested(id, request))
  }
}

/// What the control API asks beyond commands.
extension Broker {
  /// A new user; `password` is hashed, never kept. `nil`: tickets only.
  public func addUser(_ name: UserName, password: [UInt8]?) async throws(BrokerError) {
    // Refused before the costly hash.
    guard snapshot.users[name] == nil else {
      try await perform(.addUser(name, verifier: nil))
      return
    }
    var verifier: String?
    if let password { verifier = try await makeVerifier(password) }
    try await perform(.addUser(name, verifier: verifier))
  }

  public func setPassword(of name: UserName, to password: [UInt8]) async throws(BrokerError) {
    _ = try snapshot.find(name)
    try await perform(.setVerifier(name, try await makeVerifier(password)))
  }

  private func makeVerifier(_ password: [UInt8]) async throws(BrokerError) -> String {
    guard !password.isEmpty else {
      throw BrokerError(.invalid, "the password is empty: choose one with at least one character")
    }
    guard password.count <= 255 else {
      throw BrokerError(.invalid, "the password is longer than 255 bytes: choose a shorter one")
    }
    do {
      return try await authenticator.makeVerifier(of: password)
    } catch {
      throw BrokerError(.host, "the password cannot be hashed", cause: error)
    }
  }

  /// A one-time password for `user`, good for `seconds` (the configured time if `nil`).
  ///
  /// - Parameter place: the name of a pool, or of one of the user's desktops.
  public func issueTicket(
    for user: UserName, to place: String? = nil, seconds: Int?
  ) async throws(BrokerError) -> Ticket {
    var (pool, desktop): (PoolName?, DesktopID?) = (nil, nil)
    if let place {
      let id = try DesktopID(checking: place)
      if snapshot.pools[PoolName(rawValue: place)] == nil, snapshot.desktops[id]?.owner == user {
        desktop = id
      } else {
        pool = try PoolName(checking: place)
      }
    }
    let secret: String
    do {
      secret = try authenticator.makeTicketSecret()
    } catch {
      throw BrokerError(.host, "no ticket can be made", cause: error)
    }
    try await perform(
      .issueTicket(
        user, pool, desktop, secret: secret, seconds: seconds ?? settings.ticketSeconds))
    guard let ticket = snapshot.tickets.values.first(where: { $0.secret == secret }) else {
      throw BrokerError(.conflict, "the ticket expired at once: ask for a longer life")
    }
    return ticket
  }

  public func screenshot(of id: DesktopID) async throws(BrokerError) -> [UInt8] {
    let desktop = try snapshot.find(id)
    guard desktop.power == .running else {
      throw BrokerError(
        .conflict, "desktop '\(id)' is not running: start it with 'carrel desktop start \(id)'")
    }
    do {
      return try await launcher.screenshot(id)
    } catch {
      throw BrokerError(.host, "no screenshot of desktop '\(id)'", cause: error)
    }
  }

  public func displayLink(of id: DesktopID) -> String { launcher.displayLink(of: id) }
}
