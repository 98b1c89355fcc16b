/// How much of the host's memory may be promised to desktops, and from when on there is too
/// little of it.
public struct MemoryPolicy: Hashable, Sendable {
  /// What may be promised, in percent of what there is: desktops seldom use all of theirs.
  public var overcommitPercent: Int
  /// What spares and desktops that nobody looks at leave to those who log in.
  public var reserveMiB: Int
  /// With less than that available, spares and then idle desktops give theirs back.
  public var watermarkPercent: Int
  /// With less than that, nothing is started, and all spares go at once.
  public var criticalPercent: Int

  public init(
    overcommitPercent: Int = 150, reserveMiB: Int = 1024, watermarkPercent: Int = 10,
    criticalPercent: Int = 5
  ) {
    self.overcommitPercent = overcommitPercent
    self.reserveMiB = reserveMiB
    self.watermarkPercent = watermarkPercent
    self.criticalPercent = criticalPercent
  }
}

/// The host's memory as the broker keeps account of it. Without a reading there is no limit.
/// Not stored: a start of `carreld` measures anew.
public struct MemoryBudget: Hashable, Sendable {
  public enum State: String, Hashable, Sendable, CaseIterable {
    case ok, tight, critical
  }

  /// What a VMM takes beside the guest's memory, at most: 16 MiB of video memory, device
  /// state, its code and heap, and its display process.
  public static let overheadMiB = 48

  public let policy: MemoryPolicy
  public private(set) var reading: MemoryReading?
  public private(set) var state = State.ok
  /// What was started since the reading, and may take that much soon.
  var begunMiB = 0
  /// Whether nothing was being given up at the reading or since, so that it tells how
  /// things are.
  var isFresh = false
  /// What was last discarded or suspended for want of memory.
  var givenUp: Set<DesktopID> = []
  /// Desktops that are not started for want of memory.
  var held: Set<DesktopID> = []
  /// Whether a pool has fewer spares for want of memory.
  var withholdsSpares = false
  /// Those that could not be suspended, until when they are left alone.
  var unsuspendable: [DesktopID: Timestamp] = [:]

  public init(policy: MemoryPolicy = MemoryPolicy()) { self.policy = policy }

  /// The most that may be promised.
  public var limitMiB: Int { share(policy.overcommitPercent) }

  /// A reserve of all there is would leave nothing to spares.
  public var reserveMiB: Int { min(policy.reserveMiB, share(25)) }

  /// The most that may be promised for spares and what nobody looks at.
  var spareLimitMiB: Int { limitMiB - reserveMiB }

  var watermarkMiB: Int { max(share(policy.watermarkPercent), reserveMiB) }

  var criticalMiB: Int { share(policy.criticalPercent) }

  /// What can be counted on until the next reading.
  var leftMiB: Int { (reading?.availableMiB ?? 0) - begunMiB }

  private func share(_ percent: Int) -> Int {
    let total = reading?.totalMiB ?? 0
    return total / 100 * percent + total % 100 * percent / 100
  }

  /// States are left by a quarter more than they are entered, so that what is given back
  /// does not bring back at once what took it.
  mutating func take(_ reading: MemoryReading, begunMiB: Int, isFresh: Bool) {
    self.reading = reading
    self.begunMiB = begunMiB
    self.isFresh = isFresh
    let available = reading.availableMiB
    let isBelowCritical = available < Self.line(criticalMiB, left: state != .critical)
    let isBelow = available < Self.line(watermarkMiB, left: state == .ok)
    // Others than desktops may stall, each within a limit of its own.
    let stalls = reading.isStalling && available < 2 * watermarkMiB
    state = isBelowCritical ? .critical : isBelow || stalls ? .tight : .ok
  }

  private static func line(_ line: Int, left: Bool) -> Int {
    left ? line : line + line / 4
  }

  /// What keeps something that takes so much from being started, for people.
  ///
  /// - Parameters:
  ///   - promised: what desktops have already.
  ///   - isAwaited: whether somebody waits for it, for whom the reserve is.
  func want(of cost: Int, _ promised: Int, _ isAwaited: Bool) -> String {
    let limit = isAwaited ? limitMiB : spareLimitMiB
    if promised + cost > limit {
      return "\(max(0, limit - promised)) MiB of the \(limit) MiB are left that may be promised"
        + (isAwaited ? "" : " to desktops that nobody waits for")
    }
    let kept = isAwaited ? criticalMiB : watermarkMiB
    let left = "the host has \(max(0, leftMiB)) MiB available"
    return leftMiB - cost < kept
      ? "\(left), of which \(kept) MiB stay free" : "\(left), which is \(state.rawValue)"
  }

  /// Whether a reading could make a difference to anything.
  func heeds(_ reading: MemoryReading) -> Bool {
    guard let last = self.reading, last.totalMiB == reading.totalMiB else { return true }
    return state != .ok || begunMiB > 0 || !held.isEmpty || withholdsSpares || reading.isStalling
      || reading.availableMiB < 2 * watermarkMiB
      || abs(reading.availableMiB - last.availableMiB) > reading.totalMiB / 64
  }
}
