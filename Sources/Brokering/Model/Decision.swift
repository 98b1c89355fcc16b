/// Why the broker did something: what `carrel explain` prints.
public struct Decision: Hashable, Codable, Sendable {
  public let time: Timestamp
  public let reason: Reason
  public let user: UserName?
  public let desktop: DesktopID?
  /// One sentence for people.
  public let text: String

  public init(
    time: Timestamp, reason: Reason, user: UserName? = nil, desktop: DesktopID? = nil,
    text: String
  ) {
    self.time = time
    self.reason = reason
    self.user = user
    self.desktop = desktop
    self.text = text
  }
}

/// Reason codes. Stable: scripts and alerts match on them.
public enum Reason: String, Hashable, Codable, Sendable, CaseIterable {
  // Logins
  case loginExistingDesktop = "login-existing-desktop"
  case loginCleanSpare = "login-clean-spare"
  case loginStartedDesktop = "login-started-desktop"
  case loginReservedStarting = "login-reserved-starting"
  case loginWaitingPoolFull = "login-waiting-pool-full"
  case loginWaitingMemory = "login-waiting-memory"
  case loginRefusedUnknownUser = "login-refused-unknown-user"
  case loginRefusedDisabled = "login-refused-disabled"
  case loginRefusedNotEntitled = "login-refused-not-entitled"
  case loginRefusedNoDesktop = "login-refused-no-desktop"
  case loginRefusedDraining = "login-refused-draining"
  case loginRefusedTakeover = "login-refused-takeover"
  case loginRefusedPassword = "login-refused-password"
  case loginRefusedTicket = "login-refused-ticket"
  case loginRefusedLockedOut = "login-refused-locked-out"
  case loginTicketUsed = "login-ticket-used"
  // Sessions
  case sessionTakenOver = "session-taken-over"
  case sessionConnected = "session-connected"
  case sessionDisconnected = "session-disconnected"
  case sessionSuspended = "session-suspended"
  case sessionResumed = "session-resumed"
  case sessionEndedByAdministrator = "session-ended-by-administrator"
  case sessionEndedByGuest = "session-ended-by-guest"
  case sessionEndedByPolicy = "session-ended-by-policy"
  case sessionEndedByCrash = "session-ended-by-crash"
  // Desktops
  case desktopCreatedSpare = "desktop-created-spare"
  case desktopCreatedForUser = "desktop-created-for-user"
  case desktopClean = "desktop-clean"
  case desktopReady = "desktop-ready"
  case desktopStarting = "desktop-starting"
  case desktopStopped = "desktop-stopped"
  case desktopStartFailed = "desktop-start-failed"
  case desktopGivenUp = "desktop-given-up"
  case desktopSleepsOn = "desktop-sleeps-on"
  case desktopCrashedRestarting = "desktop-crashed-restarting"
  case desktopCrashedRecycling = "desktop-crashed-recycling"
  case desktopRecycling = "desktop-recycling"
  case desktopReleased = "desktop-released"
  case desktopAssigned = "desktop-assigned"
  case desktopDraining = "desktop-draining"
  case desktopSurplus = "desktop-surplus"
  case desktopDiscardedMemory = "desktop-discarded-memory"
  case desktopSuspendedMemory = "desktop-suspended-memory"
  case desktopRemoved = "desktop-removed"
  case desktopReset = "desktop-reset"
  case desktopUnidentified = "desktop-unidentified"
  case desktopSnapshot = "desktop-snapshot"
  case desktopReverted = "desktop-reverted"
  case desktopRestored = "desktop-restored"
  case desktopUnlimited = "desktop-unlimited"
  // What an administrator did through a guest's agent
  case agentExec = "agent-exec"
  case agentPassword = "agent-password"
  case agentShutdown = "agent-shutdown"
  case agentFreeze = "agent-freeze"
  case agentThaw = "agent-thaw"
  // After a restart of carreld
  case recoveredRunning = "recovered-running"
  case recoveredGone = "recovered-gone"
  case recoveredOrphan = "recovered-orphan"
}
