import Brokering
import LinuxSystem
import QMP

extension Supervisor {
  public func suspend(_ desktop: DesktopID) async throws(LaunchError) {
    let directory = directory(of: desktop)
    guard let token = token(of: desktop) else {
      // It may have ended since this was wanted.
      if directory.isSuspended { return }
      throw LaunchError(.notRunning, "desktop '\(desktop)' is not running: start it first")
    }
    // It would be of no use, and there may be no room for both.
    giveUpBase(of: desktop)
    await awaitTidying(of: desktop)
    let client = ControlClient(path: directory.control)
    let limit = settings.suspendLimit
    do {
      try await offPool {
        try client.save(
          .suspend(path: directory.suspended, hasSession: directory.hasSession), within: limit)
      }
    } catch {
      throw LaunchError(
        .unresponsive, "desktop '\(desktop)' could not be suspended and runs on", cause: error)
    }
    guard await departs(desktop, token, within: limit) else {
      throw LaunchError(
        .unresponsive, "the VMM of desktop '\(desktop)' did not end after it was saved")
    }
  }
}
