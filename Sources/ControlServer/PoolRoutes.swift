import Brokering
import ControlAPI
import Foundation
import Hummingbird

extension ControlServer {
  static func addPoolRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    router.get("/v1/pools") { _, _ in
      let site = await broker.snapshot
      return answer(site.pools.sorted.map(site.document(of:)))
    }
    router.get("/v1/pools/{name}") { _, context in
      try await show(context.name("name", as: PoolName.self), broker)
    }
    router.post("/v1/pools") { request, _ in
      let pool = try Pool(try await request.body(as: PoolCreation.self))
      try await broker.perform(.createPool(pool))
      return try await show(pool.name, broker, .created)
    }
    router.patch("/v1/pools/{name}") { request, context in
      let name = try context.name("name", as: PoolName.self)
      let present = try await broker.snapshot.find(name)
      let change = try PoolChange(try await request.body(as: PoolUpdate.self), of: present)
      try await broker.perform(.updatePool(name, change))
      return try await show(name, broker)
    }
    router.delete("/v1/pools/{name}") { request, context in
      let name = try context.name("name", as: PoolName.self)
      try await broker.perform(.deletePool(name, force: request.force))
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
    let kind: PoolKind = try choice(creation.kind, "pool kind") ?? .floating
    let size = creation.size ?? 4
    let policies = try (creation.policies ?? PolicyDocument()).applied(to: PoolPolicies())
    self.init(
      name: try PoolName(checking: creation.name), kind: kind,
      image: try ImageInspector.inspect(creation.image),
      memoryMiB: creation.memoryMiB ?? 512, cpus: creation.cpus ?? 1, size: size,
      spares: creation.spares ?? min(1, size), policies: policies, created: .now)
    try check()
  }
}

extension PoolChange {
  init(_ update: PoolUpdate, of pool: Pool) throws(BrokerError) {
    self.init()
    if let image = update.image { self.image = try ImageInspector.inspect(image) }
    memoryMiB = update.memoryMiB
    cpus = update.cpus
    size = update.size
    spares = update.spares
    policies = try update.policies?.applied(to: pool.policies)
  }
}

extension Timestamp {
  /// UTC now.
  public static var now: Timestamp {
    Timestamp(milliseconds: Int64(Date().timeIntervalSince1970 * 1000))
  }
}
