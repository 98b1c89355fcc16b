import Brokering
import ControlAPI
import Hummingbird

extension ControlServer {
  static func addSnapshotRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    router.get("/v1/desktops/{id}/snapshots") { _, context in
      let id = try context.name("id", as: DesktopID.self)
      return answer(try await broker.snapshots(of: id).map(SnapshotDocument.init))
    }
    router.post("/v1/desktops/{id}/snapshots") { request, context in
      let creation = try await request.body(as: SnapshotCreation.self)
      let id = try context.name("id", as: DesktopID.self)
      let name = try SnapshotName(checking: creation.name)
      try await broker.takeSnapshot(of: id, name, quiesces: creation.quiesce ?? true)
      return try await show(name, of: id, broker, .accepted)
    }
    router.get("/v1/desktops/{id}/snapshots/{name}") { _, context in
      try await show(
        context.name("name", as: SnapshotName.self), of: context.name("id", as: DesktopID.self),
        broker)
    }
    router.delete("/v1/desktops/{id}/snapshots/{name}") { _, context in
      try await broker.deleteSnapshot(
        context.name("name", as: SnapshotName.self), of: context.name("id", as: DesktopID.self))
      return HTTPResponse.Status.noContent
    }
    router.post("/v1/desktops/{id}/snapshots/{name}/revert") { request, context in
      let id = try context.name("id", as: DesktopID.self)
      try await broker.revert(
        id, to: context.name("name", as: SnapshotName.self), force: request.force)
      return try await show(id, broker)
    }
  }

  private static func show(
    _ name: SnapshotName, of id: DesktopID, _ broker: Broker,
    _ status: HTTPResponse.Status = .ok
  ) async throws -> JSONAnswer<SnapshotDocument> {
    guard let found = try await broker.snapshots(of: id).last(where: { $0.name == name }) else {
      throw BrokerError(
        .notFound, "desktop '\(id)' has no snapshot '\(name)': see 'carrel snapshot list \(id)'")
    }
    return answer(SnapshotDocument(found), status)
  }
}

extension SnapshotDocument {
  fileprivate init(_ snapshot: DesktopSnapshot) {
    self.init(
      name: snapshot.name.rawValue, state: "ready", parent: snapshot.parent?.rawValue,
      created: WireTime(snapshot.created), memory: snapshot.hasMemory,
      quiesced: snapshot.isQuiesced, memoryBytes: snapshot.memoryBytes,
      differential: snapshot.isDifferential, pauseMicroseconds: snapshot.pauseMicroseconds,
      current: snapshot.isCurrent)
    switch snapshot.state {
    case .ready: break
    case .making(let percent): (state, self.percent) = ("making", percent)
    case .failed(let problem): (state, self.problem) = ("failed", problem)
    }
  }
}
