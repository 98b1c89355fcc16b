import Brokering
import ControlAPI
import Hummingbird
import NIOCore

extension ControlServer {
  static func addDesktopRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    router.get("/v1/desktops") { request, _ in
      let site = await broker.snapshot
      let pool = request.uri.queryParameters["pool"].map { PoolName(rawValue: String($0)) }
      if let pool { _ = try site.find(pool) }
      var documents: [DesktopDocument] = []
      for desktop in site.desktops.sorted where pool == nil || desktop.pool == pool {
        documents.append(
          site.document(of: desktop, displayLink: await broker.displayLink(of: desktop.id)))
      }
      return answer(documents)
    }
    router.get("/v1/desktops/{id}") { _, context in
      try await show(context.name("id", as: DesktopID.self), broker)
    }
    router.get("/v1/desktops/{id}/screenshot") { _, context in
      let picture = try await broker.screenshot(of: context.name("id", as: DesktopID.self))
      return Response(
        status: .ok, headers: [.contentType: "image/png"],
        body: .init(byteBuffer: ByteBuffer(bytes: picture)))
    }
    router.delete("/v1/desktops/{id}") { request, context in
      let id = try context.name("id", as: DesktopID.self)
      try await broker.perform(.deleteDesktop(id, force: request.force))
      return HTTPResponse.Status.noContent
    }
    addPowerRoutes(to: router, broker)
    addAgentRoutes(to: router, broker)
    router.post("/v1/desktops/{id}/assign") { request, context in
      let user = try UserName(checking: try await request.body(as: Assignment.self).user)
      let id = try context.name("id", as: DesktopID.self)
      try await broker.perform(.assignDesktop(id, user))
      return try await show(id, broker)
    }
  }

  private static func addPowerRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    let commands: [(String, @Sendable (DesktopID, Bool) -> AdminCommand)] = [
      ("start", { id, _ in .startDesktop(id) }),
      ("stop", { id, force in .stopDesktop(id, force: force) }),
      ("reset", { id, _ in .resetDesktop(id) }),
      ("suspend", { id, force in .suspendDesktop(id, force: force) }),
      ("resume", { id, _ in .resumeDesktop(id) }),
      ("release", { id, force in .releaseDesktop(id, force: force) }),
    ]
    for (verb, command) in commands {
      router.post("/v1/desktops/{id}/\(verb)") { request, context in
        let id = try context.name("id", as: DesktopID.self)
        try await broker.perform(command(id, request.force))
        return try await show(id, broker)
      }
    }
  }

  static func show(
    _ id: DesktopID, _ broker: Broker
  ) async throws -> JSONAnswer<DesktopDocument> {
    let site = await broker.snapshot
    let link = await broker.displayLink(of: id)
    return answer(site.document(of: try site.find(id), displayLink: link))
  }
}
