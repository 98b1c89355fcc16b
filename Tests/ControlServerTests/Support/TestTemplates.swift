import Brokering
import Synchronization

/// Templates in memory, which are ready at once.
final class TestTemplates: TemplateLibrary {
  private let content = Mutex<[PoolTemplate]>([])

  func templates() async throws(BrokerError) -> [PoolTemplate] { content.withLock { $0 } }

  func makeTemplate(_ plan: TemplatePlan) async throws(BrokerError) {
    content.withLock { content in
      var template = PoolTemplate(
        pool: plan.pool, generation: UInt64(content.count + 1), state: .ready,
        machine: plan.machine, readiness: plan.readiness, created: Timestamp(milliseconds: 0))
      template.sign = "it was asked for"
      content.append(template)
    }
  }

  func deleteTemplate(of pool: PoolName) async throws(BrokerError) {
    try content.withLock { content throws(BrokerError) in
      guard content.contains(where: { $0.pool == pool }) else {
        throw BrokerError(.notFound, "pool '\(pool)' has no template")
      }
      content.removeAll { $0.pool == pool }
    }
  }
}
