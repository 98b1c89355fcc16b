/// How much memory the host has, and has left. Implemented in `Supervisor`.
public protocol HostMemory: Sendable {
  /// What there is, at once and then every second or so, and without delay when the
  /// kernel tells that programs wait for memory. One consumer; ends when nothing can be
  /// measured (any more).
  var readings: AsyncStream<MemoryReading> { get }
}

/// The host's memory at one instant: what desktops and `carreld` may use, which may be less
/// than what is built in.
public struct MemoryReading: Hashable, Sendable {
  public let totalMiB: Int
  /// What can be taken without anything having to go to swap.
  public let availableMiB: Int
  /// Programs stand still because memory has to be found for them first.
  public let isStalling: Bool

  public init(totalMiB: Int, availableMiB: Int, isStalling: Bool = false) {
    self.totalMiB = totalMiB
    self.availableMiB = availableMiB
    self.isStalling = isStalling
  }
}

/// Whose VMM the kernel should end first, should it ever run out of memory.
public enum MemoryPriority: String, Hashable, Sendable, CaseIterable {
  /// Nobody's: nothing is lost.
  case spare
  /// Somebody's, who does not look at it now.
  case idle
  /// Somebody looks at it.
  case inUse
}
