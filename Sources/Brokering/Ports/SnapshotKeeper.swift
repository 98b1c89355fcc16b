/// Keeps snapshots of desktops: the disk at one instant, and of a running desktop its
/// memory and devices at the same. Implemented by the host, beside the desktops.
///
/// They belong to the desktop as it is: discarding it deletes them, so that none ever
/// shows one user what another left.
public protocol SnapshotKeeper: Sendable {
  /// All of them, oldest first, those under way and the last that failed included.
  func snapshots(of desktop: DesktopID) async throws(BrokerError) -> [DesktopSnapshot]

  /// Takes one of the desktop as it is now. Returns once that has begun; `snapshots` tells
  /// how it goes on. The desktop runs on meanwhile, but for a moment.
  /// - Throws: kind `exists` for a name that is taken, `conflict` for a desktop that has
  ///   nothing to take or another snapshot under way.
  func beginSnapshot(
    of desktop: DesktopID, _ request: SnapshotRequest
  ) async throws(BrokerError)

  /// Deletes one; what others need of it stays until they are gone.
  func deleteSnapshot(_ name: SnapshotName, of desktop: DesktopID) async throws(BrokerError)

  /// Ends the desktop's VMM, if there is one, and makes its next start go on from the
  /// snapshot. What was since is gone. Idempotent.
  /// - Returns: whether there is memory to go on with; without it the guest boots.
  func revert(
    _ desktop: DesktopID, to name: SnapshotName
  ) async throws(LaunchError) -> Bool
}

/// What is to be taken.
public struct SnapshotRequest: Hashable, Sendable {
  public let name: SnapshotName
  /// What the desktop is like, to be compared when somebody wants to go back.
  public let shape: DesktopShape
  /// Whether the guest's agent, if one answers, freezes file systems for the moment.
  public let quiesces: Bool

  public init(name: SnapshotName, shape: DesktopShape, quiesces: Bool) {
    self.name = name
    self.shape = shape
    self.quiesces = quiesces
  }
}

/// One snapshot of a desktop.
public struct DesktopSnapshot: Hashable, Sendable {
  public enum State: Hashable, Sendable {
    /// `percent` where it is known.
    case making(percent: Int?)
    case ready
    /// Nothing is left of it but why.
    case failed(problem: String)
  }

  public let name: SnapshotName
  public var state: State
  /// The snapshot that the desktop had come from.
  public var parent: SnapshotName?
  public var created: Timestamp
  public var shape: DesktopShape
  /// Whether it goes on where it was, rather than boot.
  public var hasMemory = false
  /// Whether the guest's file systems were frozen.
  public var isQuiesced = false
  /// What its memory takes on the host, in bytes; less when an earlier one has the rest.
  public var memoryBytes: UInt64 = 0
  public var isDifferential = false
  /// How long the guest stood.
  public var pauseMicroseconds: Int?
  /// Whether the desktop came from it last.
  public var isCurrent = false

  public init(
    name: SnapshotName, state: State, parent: SnapshotName?, created: Timestamp,
    shape: DesktopShape
  ) {
    self.name = name
    self.state = state
    self.parent = parent
    self.created = created
    self.shape = shape
  }
}

/// What must be the same for a machine to go on from where another was.
public struct DesktopShape: Hashable, Codable, Sendable {
  public let memoryMiB: Int
  public let cpus: Int
  public let hardware: Hardware
  public let kind: Image.Kind
  /// Of a kernel or an ISO; a desktop's disk is its own.
  public let imagePath: String?

  public init(of pool: Pool) {
    memoryMiB = pool.memoryMiB
    cpus = pool.cpus
    hardware = pool.hardware
    kind = pool.image.kind
    imagePath = kind == .disk ? nil : pool.image.path
  }

  /// What is different in `other`, for people; `nil` when nothing is.
  public func difference(from other: DesktopShape) -> String? {
    if memoryMiB != other.memoryMiB {
      return "\(memoryMiB) MiB of memory, and has \(other.memoryMiB) now"
    }
    if cpus != other.cpus { return "\(cpus) processors, and has \(other.cpus) now" }
    if hardware != other.hardware { return "other hardware than now" }
    guard kind == other.kind, imagePath == other.imagePath else {
      return "another image: \(imagePath ?? "a \(kind.rawValue)")"
    }
    return nil
  }
}
