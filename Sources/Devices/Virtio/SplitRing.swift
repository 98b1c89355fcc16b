import DeviceModel

/// Where the device stands in a split ring (VIRTIO 1.2, section 2.7).
struct SplitRing: Codable, Sendable {
  /// The index of the available ring that is looked at next.
  var nextAvailable: UInt16 = 0
  var usedIndex: UInt16 = 0
}

extension Virtqueue {
  private static let noInterrupt: UInt16 = 1

  mutating func nextSplit(_ memory: any GuestMemory) throws(VirtqueueError) -> VirtqueueChain? {
    guard var index = memory.number(at: driverArea &+ 2, UInt16.self) else { throw .notMemory }
    if index == split.nextAvailable && usesEventIndex {
      // The driver notifies again when it adds the next; it may have done so already.
      let event = deviceArea &+ 4 &+ UInt64(size) &* 8
      guard memory.put(split.nextAvailable, at: event) else { throw .notMemory }
      Self.fence()
      guard let again = memory.number(at: driverArea &+ 2, UInt16.self) else { throw .notMemory }
      index = again
    }
    let count = index &- split.nextAvailable
    guard count > 0 else { return nil }
    guard count <= size else {
      throw VirtqueueError("\(count) buffers are available in a ring of \(size)")
    }
    let slot = driverArea &+ 4 &+ UInt64(split.nextAvailable % size) &* 2
    guard let head = memory.number(at: slot, UInt16.self) else { throw .notMemory }
    split.nextAvailable &+= 1
    var chain = VirtqueueChain(identifier: head)
    try follow(head, table: descriptors, entries: Int(size), isIndirect: false, &chain, memory)
    return chain
  }

  /// Walks a table; each step counts, so a loop ends.
  private func follow(
    _ first: UInt16, table: UInt64, entries: Int, isIndirect: Bool,
    _ chain: inout VirtqueueChain, _ memory: any GuestMemory
  ) throws(VirtqueueError) {
    var index = first
    for step in 0..<entries {
      guard index < entries else {
        throw VirtqueueError("descriptor \(index) is beyond a table of \(entries)")
      }
      let descriptor = try Self.descriptor(
        at: table &+ UInt64(index) &* 16, isPacked: false, memory)
      if !isIndirect { chain.descriptorCount = UInt16(clamping: step + 1) }
      if descriptor.flags & DescriptorFlag.indirect != 0 {
        guard !isIndirect else { throw VirtqueueError("an indirect table is in another") }
        let count = try indirectCount(descriptor)
        return try follow(
          0, table: descriptor.address, entries: count, isIndirect: true, &chain, memory)
      }
      try append(descriptor, to: &chain, memory)
      guard descriptor.flags & DescriptorFlag.next != 0 else { return }
      index = descriptor.link
    }
    throw VirtqueueError("a chain is longer than its table of \(entries)")
  }

  mutating func completeSplit(
    _ chains: ChainGroup, _ written: UInt32, rest: Int, _ memory: any GuestMemory
  ) throws(VirtqueueError) -> Bool {
    try putUsed(chains.first, written, ahead: 0, memory)
    var left = rest
    for (index, chain) in chains.others.enumerated() {
      let part = min(left, chain.writableCount)
      try putUsed(chain, UInt32(clamping: part), ahead: UInt16(clamping: index + 1), memory)
      left -= part
    }
    let old = split.usedIndex
    split.usedIndex &+= UInt16(clamping: chains.count)
    guard memory.put(split.usedIndex, at: deviceArea &+ 2) else { throw .notMemory }
    // What the driver waits for is read after it can see the index.
    Self.fence()
    if usesEventIndex {
      let event = driverArea &+ 4 &+ UInt64(size) &* 2
      guard let wanted = memory.number(at: event, UInt16.self) else { throw .notMemory }
      return Self.crosses(event: wanted, new: split.usedIndex, old: old)
    }
    guard let flags = memory.number(at: driverArea, UInt16.self) else { throw .notMemory }
    return flags & Self.noInterrupt == 0
  }

  /// Writes an element of the used ring, so many beyond those that the driver sees.
  private func putUsed(
    _ chain: VirtqueueChain, _ written: UInt32, ahead: UInt16, _ memory: any GuestMemory
  ) throws(VirtqueueError) {
    let element = deviceArea &+ 4 &+ UInt64((split.usedIndex &+ ahead) % size) &* 8
    let value = UInt64(written) << 32 | UInt64(chain.identifier)
    guard memory.put(value, at: element) else { throw .notMemory }
  }
}
