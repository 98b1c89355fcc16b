import Brokering
import ControlAPI
import Hummingbird

extension ControlServer {
  static func addTemplateRoutes(
    to router: Router<ControlContext>, _ broker: Broker, _ library: any TemplateLibrary
  ) {
    router.get("/v1/templates") { _, _ in
      let site = await broker.snapshot
      return answer(try await library.templates().map(site.document(of:)))
    }
    router.get("/v1/templates/{name}") { _, context in
      try await show(context.name("name", as: PoolName.self), broker, library)
    }
    router.post("/v1/templates") { request, _ in
      let creation = try await request.body(as: TemplateCreation.self)
      let pool = try await broker.snapshot.find(try PoolName(checking: creation.pool))
      try checkPool(pool)
      try await library.makeTemplate(
        TemplatePlan(
          pool: pool.name, machine: TemplateMachine(of: pool),
          readiness: try TemplateReadiness(creation)))
      return try await show(pool.name, broker, library, .accepted)
    }
    router.post("/v1/templates/{name}/refresh") { _, context in
      let pool = try await broker.snapshot.find(context.name("name", as: PoolName.self))
      try checkPool(pool)
      let last = try await library.templates().last { $0.pool == pool.name && $0.readiness != nil }
      guard let readiness = last?.readiness else {
        throw BrokerError(
          .notFound,
          "pool '\(pool.name)' has no template: make one with 'carrel template create \(pool.name)'"
        )
      }
      try await library.makeTemplate(
        TemplatePlan(
          pool: pool.name, machine: TemplateMachine(of: pool), readiness: readiness))
      return try await show(pool.name, broker, library, .accepted)
    }
    router.delete("/v1/templates/{name}") { _, context in
      try await library.deleteTemplate(of: context.name("name", as: PoolName.self))
      return HTTPResponse.Status.noContent
    }
  }

  private static func checkPool(_ pool: Pool) throws(BrokerError) {
    guard !pool.draining else {
      throw BrokerError(.conflict, "pool '\(pool.name)' is being deleted")
    }
  }

  /// All generations of a pool's.
  private static func show(
    _ pool: PoolName, _ broker: Broker, _ library: any TemplateLibrary,
    _ status: HTTPResponse.Status = .ok
  ) async throws -> JSONAnswer<[TemplateDocument]> {
    let site = await broker.snapshot
    let found = try await library.templates().filter { $0.pool == pool }
    guard !found.isEmpty else {
      throw BrokerError(
        .notFound,
        "pool '\(pool)' has no template: make one with 'carrel template create \(pool)'")
    }
    return answer(found.map(site.document(of:)), status)
  }
}

extension TemplateReadiness {
  fileprivate init(_ creation: TemplateCreation) throws(BrokerError) {
    let sign: Sign
    switch creation.ready ?? (creation.marker == nil ? "automatic" : "marker") {
    case "automatic": sign = .automatic
    case "agent": sign = .agent
    case "screen": sign = .screen
    case "marker": sign = .marker(creation.marker ?? "")
    case let other:
      throw BrokerError(
        .invalid,
        "ready '\(other)' does not exist: choose automatic, agent, screen, marker")
    }
    if let given = creation.ready, given != "marker", creation.marker != nil {
      throw BrokerError(
        .invalid, "a marker and ready '\(given)' contradict each other: leave out one")
    }
    try self.init(
      sign: sign, settleSeconds: creation.settleSeconds ?? 5,
      limitSeconds: creation.limitSeconds ?? 900)
  }
}

extension Site {
  fileprivate func document(of template: PoolTemplate) -> TemplateDocument {
    var document = TemplateDocument(
      pool: template.pool.rawValue, generation: template.generation, state: "ready",
      image: template.machine?.image.path, sign: template.sign,
      clones: template.clones.map(\.rawValue), memoryBytes: template.memoryBytes,
      diskBytes: template.diskBytes, created: WireTime(template.created))
    switch template.state {
    case .ready:
      // Desktops that start find out, and have a new one made.
      if let pool = pools[template.pool], template.machine != TemplateMachine(of: pool) {
        (document.state, document.problem) = ("stale", "the pool was changed since")
      }
    case .stale(let reason): (document.state, document.problem) = ("stale", reason)
    case .making(let step): (document.state, document.step) = ("making", step)
    case .failed(let problem): (document.state, document.problem) = ("failed", problem)
    }
    return document
  }
}
