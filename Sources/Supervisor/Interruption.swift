import Brokering
import LinuxSystem

/// Has a start under way give up what takes long before there is a VMM: merging and copying
/// disks, each step of which can be done again.
final class Interruption: Sendable {
  private struct State {
    var isWanted = false
    var process: ProcessHandle?
  }

  private let state = Guarded(State())

  /// Returns at once; the start throws soon.
  func interrupt() {
    state.withLock {
      $0.isWanted = true
      // One that is gone has been waited for.
      try? $0.process?.send(.terminate)
    }
  }

  var isWanted: Bool { state.withLock { $0.isWanted } }

  /// - Throws: `LaunchError`, once it is wanted.
  func check() throws(LaunchError) {
    if isWanted {
      throw LaunchError(
        .startFailed, "the start was given up; the next one goes on with the desktop's disk")
    }
  }

  /// What the start waits for now; it is told to end once that is wanted.
  var process: ProcessHandle? {
    get { state.withLock { $0.process } }
    set {
      state.withLock {
        $0.process = newValue
        if $0.isWanted { try? newValue?.send(.terminate) }
      }
    }
  }
}
