import Display
import LinuxSystem

/// Sends a viewer its sound, as far as that delays nothing.
struct SoundSender {
  /// Bytes that may be unsent when more is sent: pixels have no longer to wait than for them.
  private static let unsentBefore = 32 * 1024
  /// No event tells that there are so few; this is when to look again, and for how long.
  private static let interval: UInt64 = 5_000_000
  private static let patience: UInt64 = 1_000_000_000

  private var sound = ViewerSound()
  /// Since when the viewer's path takes none.
  private var blockedSince: UInt64?

  var isEnabled: Bool { sound.isEnabled }

  mutating func take(_ request: AudioRequest) { sound.take(request) }

  mutating func take(_ event: DisplayLinkMessage.SoundEvent) { sound.take(event) }

  /// When to try again without being woken; `nil` when nothing waits, or has waited so long
  /// that the viewer must show first that it still reads.
  func retry(after now: UInt64) -> UInt64? {
    guard let blockedSince, now < blockedSince + Self.patience else { return nil }
    return now + Self.interval
  }

  mutating func send(to viewer: ViewerSocket) {
    while sound.hasPending {
      guard viewer.isWritable, viewer.unsent <= Self.unsentBefore else {
        blockedSince = blockedSince ?? MonotonicClock.now
        return
      }
      if let message = sound.next(), !viewer.write(message) { return }
      blockedSince = nil
    }
    blockedSince = nil
  }
}
