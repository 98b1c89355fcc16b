import DeviceModel
import Synchronization

/// What a driver did wrong with a queue.
struct VirtqueueError: Error {
  let problem: String

  init(_ problem: String) { self.problem = problem }

  static let notMemory = VirtqueueError("a ring is not in RAM")
}

/// One virtqueue, of either format: VIRTIO 1.2, sections 2.7 (split) and 2.8 (packed).
struct Virtqueue: Codable, Sendable {
  enum DescriptorFlag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
  }

  struct Descriptor {
    var address: UInt64
    var count: UInt32
    /// The identifier and flags of a packed one, flags and the next index of a split.
    var flags: UInt16
    var link: UInt16
  }

  /// Chains hold no more pieces than this, whatever tables they are in.
  static let longestTable = 1024

  let maximumSize: UInt16
  var size: UInt16
  var isEnabled = false
  var vector = VirtioPCI.noVector
  /// Descriptor, driver and device area.
  var descriptors: UInt64 = 0
  var driverArea: UInt64 = 0
  var deviceArea: UInt64 = 0
  var features: UInt64 = 0
  var split = SplitRing()
  var packed = PackedRing()

  init(maximumSize: UInt16) {
    self.maximumSize = maximumSize
    size = maximumSize
  }

  var isPacked: Bool { features & VirtioFeature.ringPacked != 0 }
  var usesEventIndex: Bool { features & VirtioFeature.eventIndex != 0 }

  /// Why the driver may not enable the queue as it set it up.
  func problem(features: UInt64, _ memory: any GuestMemory) -> String? {
    let isPacked = features & VirtioFeature.ringPacked != 0
    guard size > 0, size <= maximumSize, isPacked || size & (size - 1) == 0 else {
      return "a queue cannot have \(size) entries"
    }
    let entries = Int(size)
    let driverCount = isPacked ? 4 : 6 + entries * 2
    let deviceCount = isPacked ? 4 : 6 + entries * 8
    let areas: [(UInt64, UInt64, Int)] = [
      (descriptors, 16, entries * 16), (driverArea, isPacked ? 4 : 2, driverCount),
      (deviceArea, 4, deviceCount),
    ]
    for (address, alignment, count) in areas {
      guard address % alignment == 0 else { return "a ring is not aligned" }
      guard memory.contains(address, count: count) else { return "a ring is not in RAM" }
    }
    return nil
  }

  /// The next chain, taken off the ring; `nil` when there is none.
  mutating func next(_ memory: any GuestMemory) throws(VirtqueueError) -> VirtqueueChain? {
    try isPacked ? nextPacked(memory) : nextSplit(memory)
  }

  /// The next chains, at most `most`, with `room` in their writable parts. They are taken
  /// off the ring together, or not at all; then the driver is to notify of the next.
  mutating func next(
    room: Int, most: Int, _ memory: any GuestMemory
  ) throws(VirtqueueError) -> ChainSupply {
    var ahead = self
    guard let first = try ahead.next(memory) else { return .wait }
    var group = ChainGroup(first: first)
    var found = first.writableCount
    var descriptors = Int(first.descriptorCount)
    var longest = descriptors
    while found < room {
      // A ring that is full without being enough is not waited for.
      guard group.count < most, descriptors + longest <= Int(size) else { return .never }
      guard let chain = try ahead.next(memory) else { return .wait }
      group.others.append(chain)
      found += chain.writableCount
      descriptors += Int(chain.descriptorCount)
      longest = max(longest, Int(chain.descriptorCount))
    }
    self = ahead
    return .enough(group)
  }

  /// Gives chains back, filled one after another with `written` bytes.
  ///
  /// - Returns: whether the driver wants an interrupt for them.
  mutating func complete(
    _ chains: ChainGroup, written: Int, _ memory: any GuestMemory
  ) throws(VirtqueueError) -> Bool {
    // One alone is believed what it says: not all that has room for it was filled.
    let first = chains.others.isEmpty ? written : min(written, chains.first.writableCount)
    let count = UInt32(clamping: first)
    return try isPacked
      ? completePacked(chains, count, rest: written - first, memory)
      : completeSplit(chains, count, rest: written - first, memory)
  }

  /// Whether an index crossed the event that the other side waits for
  /// (vring_need_event of section 2.7.10).
  static func crosses(event: UInt16, new: UInt16, old: UInt16) -> Bool {
    new &- event &- 1 < new &- old
  }

  static func fence() { atomicMemoryFence(ordering: .sequentiallyConsistent) }

  static func descriptor(
    at address: UInt64, isPacked: Bool, _ memory: any GuestMemory
  ) throws(VirtqueueError) -> Descriptor {
    guard let low = memory.number(at: address, UInt64.self),
      let high = memory.number(at: address &+ 8, UInt64.self)
    else { throw .notMemory }
    let (first, second) = (
      UInt16(truncatingIfNeeded: high >> 32), UInt16(truncatingIfNeeded: high >> 48)
    )
    return Descriptor(
      address: low, count: UInt32(truncatingIfNeeded: high), flags: isPacked ? second : first,
      link: isPacked ? first : second)
  }

  /// Adds a descriptor's memory to a chain.
  func append(
    _ descriptor: Descriptor, to chain: inout VirtqueueChain, _ memory: any GuestMemory
  ) throws(VirtqueueError) {
    guard memory.contains(descriptor.address, count: Int(descriptor.count)) else {
      throw VirtqueueError(
        "a descriptor names 0x\(String(descriptor.address, radix: 16)), which is not RAM")
    }
    let segment = VirtqueueChain.Segment(address: descriptor.address, count: descriptor.count)
    if descriptor.flags & DescriptorFlag.write != 0 {
      chain.writable.append(segment)
    } else {
      guard chain.writable.isEmpty else {
        throw VirtqueueError("a chain has a readable descriptor after a writable one")
      }
      chain.readable.append(segment)
    }
  }

  /// The number of entries of an indirect table.
  func indirectCount(_ descriptor: Descriptor) throws(VirtqueueError) -> Int {
    guard features & VirtioFeature.indirectDescriptors != 0 else {
      throw VirtqueueError("an indirect descriptor was not agreed upon")
    }
    guard descriptor.flags & DescriptorFlag.next == 0 else {
      throw VirtqueueError("an indirect descriptor is not the last of its chain")
    }
    guard descriptor.count > 0, descriptor.count % 16 == 0 else {
      throw VirtqueueError("an indirect table has \(descriptor.count) bytes")
    }
    let count = Int(descriptor.count / 16)
    guard count <= Self.longestTable else {
      throw VirtqueueError("an indirect table has \(count) entries")
    }
    return count
  }
}
