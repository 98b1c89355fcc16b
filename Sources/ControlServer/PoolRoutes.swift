import Brokering
import ControlAPI
import Foundation
import Hummingbird

extension ControlServer {
  static func addPoolRoutes(
    to router: Router<ControlContext>, _ broker: Broker, _ surroundings: Surroundings
  ) {
    let datastore = Datastore(path: surroundings.datastore)
    router.get("/v1/pools") { _, _ in
      let site = await broker.snapshot
      return answer(site.pools.sorted.map(site.document(of:)))
    }
    router.get("/v1/pools/{name}") { _, context in
      try await show(context.name("name", as: PoolName.self), broker)
    }
    router.post("/v1/pools") { request, _ in
      var creation = try await request.body(as: PoolCreation.self)
      creation.image = try await creation.image.resolved(in: surroundings.library)
      let pool = try Pool(creation)
      // That there is one of that name already is for the broker to say.
      if await broker.snapshot.pools[pool.name] == nil {
        try datastore.check(roomFor: pool.spares, of: pool.image, pool: pool.name)
        if let obstacle = await surroundings.obstacle() {
          throw BrokerError(.host, "pool '\(pool.name)' cannot have desktops: \(obstacle)")
        }
      }
      try await broker.perform(.createPool(pool))
      return try await show(pool.name, broker, .created)
    }
    router.patch("/v1/pools/{name}") { request, context in
      let name = try context.name("name", as: PoolName.self)
      let present = try await broker.snapshot.find(name)
      var update = try await request.body(as: PoolUpdate.self)
      update.image = try await update.image?.resolved(in: surroundings.library)
      let change = try PoolChange(update, of: present)
      try await datastore.check(roomFor: change, of: present, in: broker.snapshot)
      try await broker.perform(.updatePool(name, change))
      return try await show(name, broker)
    }
    router.delete("/v1/pools/{name}") { request, context in
      let name = try context.name("name", as: PoolName.self)
      try await broker.perform(.deletePool(name, force: request.force))
      do {
        try await surroundings.templates.deleteTemplate(of: name)
      } catch let error as BrokerError where error.kind == .notFound {
        // Most pools have none.
      }
      return HTTPResponse.Status.noContent
    }
  }

  private static func show(
    _ name: PoolName, _ broker: Broker, _ status: HTTPResponse.Status = .ok
  ) async throws -> JSONAnswer<PoolDocument> {
    let site = await broker.snapshot
    return answer(site.document(of: try site.find(name)), status)
  }
}

extension Pool {
  /// A checked pool out of a request; the image is looked at.
  init(_ creation: PoolCreation) throws(BrokerError) {
    let kind: PoolKind = try choice(creation.kind, "--kind") ?? .floating
    let size = creation.size ?? 4
    let memory = creation.memoryMiB ?? 512
    let policies = try (creation.policies ?? PolicyDocument()).applied(to: PoolPolicies())
    var parts = PoolChange()
    try creation.hardware?.change(&parts)
    self.init(
      name: try PoolName(checking: creation.name), kind: kind,
      image: try ImageInspector.inspect(creation.image, memoryMiB: memory),
      memoryMiB: memory, cpus: creation.cpus ?? 1, diskMiB: creation.diskMiB,
      hardware: parts.applied(to: Hardware()), size: size, spares: creation.spares ?? min(1, size),
      policies: policies, created: .now)
    try check()
  }
}

extension PoolChange {
  init(_ update: PoolUpdate, of pool: Pool) throws(BrokerError) {
    self.init()
    let memory = update.memoryMiB ?? pool.memoryMiB
    if let image = update.image {
      self.image = try ImageInspector.inspect(image, memoryMiB: memory)
    } else if memory != pool.memoryMiB, pool.image.kind == .kernel {
      _ = try ImageInspector.inspect(ImageDocument(path: pool.image.path), memoryMiB: memory)
    }
    memoryMiB = update.memoryMiB
    cpus = update.cpus
    diskMiB = update.diskMiB
    try update.hardware?.change(&self)
    size = update.size
    spares = update.spares
    policies = try update.policies?.applied(to: pool.policies)
  }
}

extension Datastore {
  /// The same for a change, which may replace the spares that there are.
  fileprivate func check(
    roomFor change: PoolChange, of pool: Pool, in site: Site
  ) throws(BrokerError) {
    let image = change.image ?? pool.image
    let spares = change.spares ?? pool.spares
    let present = site.desktops(of: pool.name).count { $0.owner == nil }
    if image == pool.image {
      try check(roomFor: spares - present, of: image, pool: pool.name)
    } else {
      let freed = (cost(of: pool.image) ?? 0).multipliedReportingOverflow(by: UInt64(present))
      try check(roomFor: spares, of: image, freed: freed.partialValue, pool: pool.name)
    }
  }
}

extension Timestamp {
  /// UTC now.
  public static var now: Timestamp {
    Timestamp(milliseconds: Int64(Date().timeIntervalSince1970 * 1000))
  }
}
