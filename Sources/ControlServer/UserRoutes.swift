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
      var pool: PoolName?
      if let text = wanted.pool { pool = try PoolName(checking: text) }
      let ticket = try await broker.issueTicket(for: user, pool: pool, seconds: wanted.seconds)
      return answer(
        TicketDocument(
          ticket: ticket.secret, user: user.rawValue, pool: pool?.rawValue,
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
    return ExplanationDocument(
      user: name.rawValue,
      now: pools.map { outcome(of: Login(user: name, pool: $0, peer: nowhere)) },
      history: (histories[name] ?? []).map(DecisionDocument.init))
  }
}
