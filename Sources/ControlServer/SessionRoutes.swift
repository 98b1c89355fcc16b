import Brokering
import ControlAPI
import Foundation
import Hummingbird

extension ControlServer {
  static func addSessionRoutes(to router: Router<ControlContext>, _ broker: Broker) {
    router.get("/v1/sessions") { _, _ in
      let site = await broker.snapshot
      return answer(site.sessions.sorted.map(site.document(of:)))
    }
    router.get("/v1/sessions/{id}") { _, context in
      let site = await broker.snapshot
      return answer(site.document(of: try site.find(context.name("id", as: SessionID.self))))
    }
    router.delete("/v1/sessions/{id}") { _, context in
      try await broker.perform(.endSession(context.name("id", as: SessionID.self)))
      return HTTPResponse.Status.noContent
    }
  }

  static func addSystemRoutes(
    to router: Router<ControlContext>, _ broker: Broker, _ surroundings: Surroundings
  ) {
    router.get("/v1/status") { _, _ in
      let site = await broker.snapshot
      let gateway = await surroundings.gateway()
      return answer(
        StatusDocument(
          version: surroundings.version, started: surroundings.started,
          processID: Int(getpid()), addresses: gateway.addresses,
          fingerprint: gateway.fingerprint, pools: site.pools.sorted.map(site.document(of:)),
          users: site.users.count, sessions: site.sessions.count, viewers: site.viewers.count,
          waiting: site.viewers.values.count { $0.session == nil },
          memory: MemoryDocument(site)))
    }
    router.get("/v1/doctor") { _, _ in answer(await surroundings.doctor()) }
  }
}
