import DeviceModel

/// Where the device stands in a packed ring (VIRTIO 1.2, section 2.8).
struct PackedRing: Codable, Sendable {
  var nextAvailable: UInt16 = 0
  var availableWrap = true
  var nextUsed: UInt16 = 0
  var usedWrap = true
}

extension Virtqueue {
  private enum PackedFlag {
    static let available: UInt16 = 1 << 7
    static let used: UInt16 = 1 << 15
  }

  /// Values of the event suppression structure's flags (section 2.8.10).
  private enum Event {
    static let enable: UInt16 = 0
    static let disable: UInt16 = 1
    static let descriptor: UInt16 = 2
  }

  mutating func nextPacked(_ memory: any GuestMemory) throws(VirtqueueError) -> VirtqueueChain? {
    if try !isNextAvailable(memory) {
      guard usesEventIndex else { return nil }
      // The driver notifies again when it adds the next; it may have done so already.
      let offset = UInt32(packed.nextAvailable) | (packed.availableWrap ? 0x8000 : 0)
      guard memory.put(UInt32(Event.descriptor) << 16 | offset, at: deviceArea) else {
        throw .notMemory
      }
      Self.fence()
      guard try isNextAvailable(memory) else { return nil }
    }
    var chain = VirtqueueChain(identifier: 0, descriptorCount: 0)
    for count in 1...max(size, 1) {
      let descriptor = try Self.descriptor(
        at: descriptors &+ UInt64(packed.nextAvailable) &* 16, isPacked: true, memory)
      packed.nextAvailable += 1
      if packed.nextAvailable >= size {
        packed.nextAvailable = 0
        packed.availableWrap.toggle()
      }
      if descriptor.flags & DescriptorFlag.indirect != 0 {
        try addTable(descriptor, to: &chain, memory)
      } else {
        try append(descriptor, to: &chain, memory)
      }
      if descriptor.flags & DescriptorFlag.next == 0 {
        chain.identifier = descriptor.link
        chain.descriptorCount = count
        return chain
      }
    }
    throw VirtqueueError("a chain is longer than its ring of \(size)")
  }

  private func isNextAvailable(_ memory: any GuestMemory) throws(VirtqueueError) -> Bool {
    let next = descriptors &+ UInt64(packed.nextAvailable) &* 16
    guard let flags = memory.number(at: next &+ 14, UInt16.self) else { throw .notMemory }
    let isAvailable = flags & PackedFlag.available != 0
    return isAvailable == packed.availableWrap
      && (flags & PackedFlag.used != 0) != packed.availableWrap
  }

  /// The entries of a table follow each other; of their flags only WRITE counts.
  private func addTable(
    _ descriptor: Descriptor, to chain: inout VirtqueueChain, _ memory: any GuestMemory
  ) throws(VirtqueueError) {
    for index in 0..<(try indirectCount(descriptor)) {
      let entry = try Self.descriptor(
        at: descriptor.address &+ UInt64(index) &* 16, isPacked: true, memory)
      guard entry.flags & DescriptorFlag.indirect == 0 else {
        throw VirtqueueError("an indirect table is in another")
      }
      try append(entry, to: &chain, memory)
    }
  }

  /// The first of them becomes valid last: a driver looks at no other before.
  mutating func completePacked(
    _ chains: ChainGroup, _ written: UInt32, rest: Int, _ memory: any GuestMemory
  ) throws(VirtqueueError) -> Bool {
    let old = packed
    advanceUsed(past: chains.first)
    var left = rest
    for chain in chains.others {
      let part = min(left, chain.writableCount)
      try putUsed(chain, UInt32(clamping: part), at: packed, memory)
      left -= part
      advanceUsed(past: chain)
    }
    try putUsed(chains.first, written, at: old, memory)
    Self.fence()
    let wraps = packed.usedWrap != old.usedWrap
    return try wantsInterrupt(since: wraps ? old.nextUsed &- size : old.nextUsed, memory)
  }

  private func putUsed(
    _ chain: VirtqueueChain, _ written: UInt32, at place: PackedRing, _ memory: any GuestMemory
  ) throws(VirtqueueError) {
    let entry = descriptors &+ UInt64(place.nextUsed) &* 16
    let identifier = UInt64(chain.identifier) << 32
    // Length and identifier first, then the flags that make them valid.
    var flags: UInt16 = place.usedWrap ? PackedFlag.available | PackedFlag.used : 0
    if written > 0 { flags |= DescriptorFlag.write }
    guard let present = memory.number(at: entry &+ 14, UInt16.self),
      memory.put(UInt64(present) << 48 | identifier | UInt64(written), at: entry &+ 8)
    else { throw .notMemory }
    Self.fence()
    guard memory.put(flags, at: entry &+ 14) else { throw .notMemory }
  }

  private mutating func advanceUsed(past chain: VirtqueueChain) {
    let next = UInt32(packed.nextUsed) + UInt32(chain.descriptorCount)
    let wraps = next >= UInt32(size)
    packed.nextUsed = UInt16(truncatingIfNeeded: wraps ? next - UInt32(size) : next)
    if wraps { packed.usedWrap.toggle() }
  }

  private func wantsInterrupt(
    since old: UInt16, _ memory: any GuestMemory
  ) throws(VirtqueueError) -> Bool {
    guard let event = memory.number(at: driverArea, UInt32.self) else { throw .notMemory }
    switch UInt16(truncatingIfNeeded: event >> 16) & 3 {
    case Event.disable: return false
    case Event.descriptor where usesEventIndex:
      var offset = UInt16(truncatingIfNeeded: event & 0x7FFF)
      if (event & 0x8000 != 0) != packed.usedWrap { offset &-= size }
      return Self.crosses(event: offset, new: packed.nextUsed, old: old)
    default: return true
    }
  }
}
