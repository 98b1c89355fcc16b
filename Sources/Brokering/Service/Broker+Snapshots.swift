/// Snapshots of desktops, as administrators ask for them.
extension Broker {
  public func snapshots(of id: DesktopID) async throws(BrokerError) -> [DesktopSnapshot] {
    _ = try snapshot.find(id)
    return try await launcher.snapshots(of: id)
  }

  /// Returns once the taking has begun.
  public func takeSnapshot(
    of id: DesktopID, _ name: SnapshotName, quiesces: Bool
  ) async throws(BrokerError) {
    let (desktop, pool) = try usable(id)
    if desktop.phase == .suspended || desktop.saved {
      throw BrokerError(
        .conflict,
        "desktop '\(id)' is suspended: wake it with 'carrel desktop resume \(id)' first")
    }
    try await launcher.beginSnapshot(
      of: id, SnapshotRequest(name: name, shape: DesktopShape(of: pool), quiesces: quiesces))
    try await note(.desktopSnapshot, desktop, "snapshot '\(name)' of it is taken")
  }

  public func deleteSnapshot(
    _ name: SnapshotName, of id: DesktopID
  ) async throws(BrokerError) {
    let desktop = try snapshot.find(id)
    try await launcher.deleteSnapshot(name, of: id)
    try await note(.desktopSnapshot, desktop, "its snapshot '\(name)' is deleted")
  }

  /// Returns when it is decided; the desktop goes on from the snapshot soon.
  public func revert(
    _ id: DesktopID, to name: SnapshotName, force: Bool
  ) async throws(BrokerError) {
    let (_, pool) = try usable(id)
    let found = try await launcher.snapshots(of: id).first { $0.name == name }
    guard let found, found.state == .ready else {
      throw BrokerError(
        .notFound,
        "desktop '\(id)' has no snapshot '\(name)': see 'carrel snapshot list \(id)'")
    }
    if found.hasMemory, let difference = found.shape.difference(from: DesktopShape(of: pool)) {
      throw BrokerError(
        .conflict,
        "snapshot '\(name)' of desktop '\(id)' was taken with \(difference): give pool "
          + "'\(pool.name)' that again with 'carrel pool set'")
    }
    try await perform(.revertDesktop(id, name, force: force))
  }

  func usable(_ id: DesktopID) throws(BrokerError) -> (Desktop, Pool) {
    let desktop = try snapshot.find(id)
    guard ![.dirty, .recycling, .draining].contains(desktop.phase) else {
      throw BrokerError(.conflict, "desktop '\(id)' is being thrown away")
    }
    return (desktop, try snapshot.find(desktop.pool))
  }

  private func note(
    _ reason: Reason, _ desktop: Desktop, _ text: String
  ) async throws(BrokerError) {
    try await perform(
      .record(reason, desktop.owner, desktop.id, "\(desktop.id), by the administrator: \(text)"))
  }
}
