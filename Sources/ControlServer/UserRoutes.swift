import Brokering
import ControlAPI
import Hummingbird

extension ControlServer {
  static func addUserRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    router.get("/v1/users") { _, _ in
      let site = await broker.snapshot
      return answer(site.users.sorted.map(site.document(of:)))
    }
    router.get("/v1/users/{name}") { _, context in
      try await show(context.name("name", as: UserName.self), broker)
    }
    router.post("/v1/users") { request, _ in
      let creation = try await request.body(as: UserCreation.self)
      let name = try UserName(checking: creation.name)
      try await broker.addUser(name, password: creation.password.map { [UInt8]($0.utf8) })
      return try await show(name, broker, .created)
    }
    router.put("/v1/users/{name}/password") { request, context in
      let name = try context.name("name", as: UserName.self)
      let change = try await request.body(as: PasswordChange.self)
      try await broker.setPassword(of: name, to: [UInt8](change.password.utf8))
      return HTTPResponse.Status.noContent
    }
    router.put("/v1/users/{name}/disabled") { request, context in
      let name = try context.name("name", as: UserName.self)
      let change = try await request.body(as: DisabledChange.self)
      try await broker.perform(.setDisabled(name, change.disabled))
      return try await show(name, broker)
    }
    router.delete("/v1/users/{name}") { request, context in
      let name = try context.name("name", as: UserName.self)
      try await broker.perform(.deleteUser(name, force: request.force))
      return HTTPResponse.Status.noContent
    }
    addEntitlementRoutes(to: router, broker)
    addLoginRoutes(to: router, broker)
  }

  private static func addEntitlementRoutes(
    to router: Router<ControlContext>, _ broker: Broker
  ) {
    router.put("/v1/users/{name}/pools/{pool}") { _, context in
      let user = try context.name("name", as: UserName.self)
      try await broker.perform(.entitle(user, context.name("pool", as: PoolName.self)))
      return try await show(user, broker)
    }
    router.delete("/v1/users/{name}/pools/{pool}") { _, context in
      let user = try context.name("name", as: UserName.self)
      try await broker.perform(.revoke(user, context.name("pool", as: PoolName.self)))
      return try await show(user, broker)
    }
  }

  private static func addLoginRoutes(
    to router: Router<ControlContext>, _ broker: Broker
  ) {
    router.post("/v1/users/{name}/tickets") { request, context in
      let user = try context.name("name", as: UserName.self)
      let wanted = try await request.body(as: TicketRequest.self)
      let ticket = try await broker.issueTicket(
        for: user, to: wanted.pool, seconds: wanted.seconds)
      return answer(
        TicketDocument(
          ticket: ticket.secret, user: user.rawValue, pool: wanted.pool,
          expires: WireTime(ticket.expires)), .created)
    }
    router.get("/v1/users/{name}/explanation") { _, context in
      let name = try context.name("name", as: UserName.self)
      return answer(await broker.snapshot.explanation(of: name))
    }
  }

  private static func show(
    _ name: UserName, _ broker: Broker, _ status: HTTPResponse.Status = .ok
  ) async throws -> JSONAnswer<UserDocument> {
    let site = await broker.snapshot
    return answer(site.document(of: try site.find(name)), status)
  }
}

extension Site {
  /// Also of users that do not exist: that they do not is the explanation.
  func explanation(of name: UserName) -> ExplanationDocument {
    let nowhere = PeerAddress("")
    let pools: [PoolName?] =
      [nil] + entitlements.sorted.filter { $0.user == name }.map(\.pool)
    var logins = pools.map { Login(user: name, pool: $0, peer: nowhere) }
    // Others of the user's desktops are reached by their names alone.
    let reached = Set(logins.map(placement))
    logins += desktops.sorted.filter { $0.owner == name && !reached.contains(.existing($0.id)) }
      .map { Login(user: name, pool: nil, desktop: $0.id, peer: nowhere) }
    return ExplanationDocument(
      user: name.rawValue, now: logins.map(outcome),
      history: (histories[name] ?? []).map(DecisionDocument.init))
  }
}
