import Brokering

/// Simulated desktops have nothing to be cloned.
struct NoTemplates: TemplateLibrary {
  func templates() async throws(BrokerError) -> [PoolTemplate] { [] }

  func makeTemplate(_ plan: TemplatePlan) async throws(BrokerError) {
    throw BrokerError(
      .conflict, "desktops of pool '\(plan.pool)' are simulated: there is nothing to clone")
  }

  func deleteTemplate(of pool: PoolName) async throws(BrokerError) {
    throw BrokerError(.notFound, "pool '\(pool)' has no template")
  }
}
