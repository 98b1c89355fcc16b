import Display

/// What a display may send of its microphone: as much as one hears in the time that
/// passes, a quarter faster for its clock's and the host's sake, and half a second at once.
struct MicrophoneAllowance {
  private static let most = DisplayLinkMessage.maximumWaitingFrames
  private static let perSecond = UInt64(DisplayLinkMessage.microphoneRate * 5 / 4)
  private static let second: UInt64 = 1_000_000_000

  private var frames = Self.most
  private var since: UInt64

  init(at now: UInt64) { since = now }

  /// Whether so many frames may come now; then they have.
  mutating func take(_ count: Int, at now: UInt64) -> Bool {
    let passed = min(now > since ? now - since : 0, Self.second)
    let earned = Int(passed * Self.perSecond / Self.second)
    if earned > 0 {
      frames = min(frames + earned, Self.most)
      since = now
    }
    guard count <= frames else { return false }
    frames -= count
    return true
  }
}
