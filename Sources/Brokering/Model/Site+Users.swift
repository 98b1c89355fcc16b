/// Users, entitlements and tickets.
extension Site {
  mutating func performOnUser(_ command: AdminCommand, now: Timestamp) throws(BrokerError) {
    switch command {
    case .addUser(let name, let verifier):
      guard users[name] == nil else {
        throw BrokerError(
          .exists,
          "there is a user '\(name)' already: change the password with "
            + "'carrel user passwd \(name)'")
      }
      users[name] = User(name: name, verifier: verifier, created: now)
    case .setVerifier(let name, let verifier):
      var user = try find(name)
      user.verifier = verifier
      users[name] = user
    case .setDisabled(let name, let flag): try setDisabled(find(name), flag)
    case .deleteUser(let name, let force): try delete(find(name), force: force, now: now)
    case .entitle(let name, let pool):
      let entitlement = Entitlement(user: try find(name).name, pool: try find(pool).name)
      entitlements[entitlement] = entitlement
    case .revoke(let name, let pool): try revoke(find(name).name, find(pool).name, now: now)
    default: break
    }
  }

  private mutating func setDisabled(_ user: User, _ flag: Bool) {
    var user = user
    user.disabled = flag
    users[user.name] = user
    guard flag else { return }
    removeTickets { $0.user == user.name }
    for viewer in viewers.values.sorted(by: { $0.id < $1.id })
    where viewer.login.user == user.name {
      actions.append(.close(viewer.id, "Your account was disabled."))
    }
  }

  private mutating func delete(
    _ user: User, force: Bool, now: Timestamp
  ) throws(BrokerError) {
    let owned = desktops.sorted.filter { $0.owner == user.name }
    if let first = owned.first, !force {
      throw BrokerError(
        .conflict,
        "user '\(user.name)' has desktop \(first.id): release it with 'carrel desktop release "
          + "\(first.id)', or delete the user and everything of theirs with "
          + "'carrel user delete \(user.name) --force'")
    }
    for record in owned { release(record, telling: "Your account was deleted.", now: now) }
    for entitlement in entitlements.sorted where entitlement.user == user.name {
      entitlements[entitlement] = nil
    }
    for viewer in viewers.values where viewer.login.user == user.name {
      viewers[viewer.id] = nil
      actions.append(.close(viewer.id, "Your account was deleted."))
    }
    removeTickets { $0.user == user.name }
    histories[user.name] = nil
    users[user.name] = nil
  }

  private mutating func revoke(
    _ user: UserName, _ pool: PoolName, now: Timestamp
  ) throws(BrokerError) {
    let entitlement = Entitlement(user: user, pool: pool)
    guard entitlements[entitlement] != nil else {
      throw BrokerError(
        .notFound,
        "user '\(user)' is not entitled to pool '\(pool)': see 'carrel user show \(user)'"
      )
    }
    entitlements[entitlement] = nil
    for record in desktops(of: pool) where record.owner == user {
      note(
        .sessionEndedByAdministrator, "\(user) may no longer use pool \(pool)", user: user,
        desktop: record.id, now: now)
      endSession(on: record.id, telling: "You may no longer use this desktop.", now: now)
    }
  }

  // MARK: Tickets

  mutating func performOnTicket(_ command: AdminCommand, now: Timestamp) throws(BrokerError) {
    switch command {
    case .issueTicket(let name, let pool, let desktop, let secret, let seconds):
      let user = try find(name)
      guard !user.disabled else {
        throw BrokerError(
          .conflict,
          "user '\(name)' is disabled: let them in again with 'carrel user enable \(name)'")
      }
      if let pool { _ = try find(pool) }
      guard seconds > 0 else {
        throw BrokerError(
          .invalid, "a ticket that lives \(seconds) s is of no use: choose 1 or more")
      }
      guard tickets.count < Self.mostTickets else {
        throw BrokerError(
          .conflict, "there are \(tickets.count) live tickets: wait until some have expired")
      }
      guard !tickets.values.contains(where: { $0.secret == secret }) else {
        throw BrokerError(.conflict, "that ticket exists already: ask for another")
      }
      var numbers = counters[Counters.key] ?? Counters()
      let id = TicketID(rawValue: "t\(numbers.nextTicket)")
      numbers.nextTicket += 1
      counters[Counters.key] = numbers
      tickets[id] = Ticket(
        id: id, user: name, pool: pool, desktop: desktop, secret: secret,
        expires: now.adding(seconds: seconds))
    case .useTicket(let id):
      guard let ticket = tickets[id], ticket.expires > now else {
        throw BrokerError(.notFound, "the ticket was used or has expired: ask for another")
      }
      tickets[id] = nil
      note(.loginTicketUsed, "ticket \(id) was used", user: ticket.user, now: now)
    default: break
    }
  }

  mutating func expireTickets(now: Timestamp) {
    removeTickets { $0.expires <= now }
  }

  private mutating func removeTickets(where matches: (Ticket) -> Bool) {
    for ticket in tickets.sorted where matches(ticket) { tickets[ticket.id] = nil }
  }
}

extension RecordTable where Record == Ticket {
  var sorted: [Ticket] { values.sorted { $0.id < $1.id } }
}
