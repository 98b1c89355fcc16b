/// What the control API asks of guest agents.
extension Broker {
  /// Asks the agent of a running desktop. What changes something is recorded first, and not
  /// done if that fails.
  ///
  /// - Parameter force: also a shutdown of what somebody is using.
  public func askAgent(
    of id: DesktopID, _ request: AgentRequest, force: Bool = false
  ) async throws(BrokerError) -> AgentAnswer {
    let site = snapshot
    let desktop = try site.find(id)
    guard desktop.phase != .suspended else {
      throw BrokerError(
        .conflict,
        "desktop '\(id)' is suspended, so nothing in it answers: wake it with "
          + "'carrel desktop resume \(id)'")
    }
    guard desktop.power == .running else {
      throw BrokerError(
        .conflict, "desktop '\(id)' is not running: start it with 'carrel desktop start \(id)'")
    }
    if case .shutdown = request {
      try site.refuseInUse(desktop, force: force, verb: "agent shutdown")
    }
    if let record = request.record {
      try await perform(
        .record(record.reason, desktop.owner, id, "\(id), by the administrator: \(record.text)"))
    }
    do {
      return try await launcher.ask(id, request)
    } catch {
      throw BrokerError(
        error.kind == .agentRefused ? .conflict : .host, error.context, cause: error.cause)
    }
  }
}
