import Devices

/// The driver's end of one virtqueue with event indices, in either format: VIRTIO 1.2,
/// sections 2.7 (split) and 2.8 (packed). Every chain has the same number of pieces and a
/// slot of its own.
final class DriverRing {
  struct Piece {
    var address: Int
    var count: Int
    var isWritable: Bool

    static func readable(_ address: Int, _ count: Int) -> Piece {
      Piece(address: address, count: count, isWritable: false)
    }

    static func writable(_ address: Int, _ count: Int) -> Piece {
      Piece(address: address, count: count, isWritable: true)
    }
  }

  private enum Flag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let available: UInt16 = 1 << 7
    static let used: UInt16 = 1 << 15
  }

  /// Values of the flags of a packed ring's event suppression (section 2.8.10).
  private enum Event {
    static let disable: UInt16 = 1
    static let descriptor: UInt16 = 2
  }

  /// What a ring's areas take, from its base on.
  static let room = 0x4000

  let size: Int
  let isPacked: Bool
  let descriptors: Int
  let driverArea: Int
  let deviceArea: Int
  private let memory: BenchMemory
  private let pieces: Int
  /// Of the split ring.
  private var availableIndex: UInt16 = 0
  private var publishedIndex: UInt16 = 0
  private var usedIndex: UInt16 = 0
  /// Of the packed ring.
  private var place = 0
  private var wrap = true
  private var usedPlace = 0
  private var usedWrap = true
  /// Descriptors that `publish` has not told of.
  private var added: UInt16 = 0

  /// - Parameters:
  ///   - size: a power of two, at most 256.
  ///   - pieces: of every chain; all slots together fit the ring.
  init(_ memory: BenchMemory, at base: Int, size: Int, pieces: Int, packed: Bool) {
    self.memory = memory
    self.size = size
    self.pieces = pieces
    isPacked = packed
    descriptors = base
    driverArea = base + 0x1000
    deviceArea = base + 0x2000
  }

  /// Makes a chain, which `publish` tells the device of.
  func add(slot: Int, _ chain: [Piece]) {
    if isPacked { addPacked(slot, chain) } else { addSplit(slot, chain) }
  }

  private func addSplit(_ slot: Int, _ chain: [Piece]) {
    let head = slot * pieces
    for (index, piece) in chain.enumerated() {
      let isLast = index == chain.count - 1
      describe(
        head + index, piece, (piece.isWritable ? Flag.write : 0) | (isLast ? 0 : Flag.next),
        UInt16(isLast ? 0 : head + index + 1))
    }
    memory.put(UInt16(head), at: driverArea + 4 + Int(availableIndex) % size * 2)
    availableIndex &+= 1
  }

  /// The first descriptor's flags come last: they make the chain available.
  private func addPacked(_ slot: Int, _ chain: [Piece]) {
    let first = place
    var firstFlags: UInt16 = 0
    for (index, piece) in chain.enumerated() {
      let flags =
        (wrap ? Flag.available : Flag.used) | (piece.isWritable ? Flag.write : 0)
        | (index == chain.count - 1 ? 0 : Flag.next)
      let at = descriptors + place * 16
      memory.put(UInt64(piece.address), at: at)
      memory.put(UInt32(piece.count), at: at + 8)
      memory.put(UInt16(slot), at: at + 12)
      if index == 0 { firstFlags = flags } else { memory.put(flags, at: at + 14) }
      place += 1
      if place == size {
        place = 0
        wrap.toggle()
      }
    }
    BenchMemory.fence()
    memory.put(firstFlags, at: descriptors + first * 16 + 14)
    added += UInt16(chain.count)
  }

  private func describe(_ index: Int, _ piece: Piece, _ flags: UInt16, _ next: UInt16) {
    let at = descriptors + index * 16
    memory.put(UInt64(piece.address), at: at)
    memory.put(UInt32(piece.count), at: at + 8)
    memory.put(flags, at: at + 12)
    memory.put(next, at: at + 14)
  }

  /// Shows the device what was added; returns whether it wants to be notified.
  func publish() -> Bool {
    BenchMemory.fence()
    if isPacked { return publishPacked() }
    guard availableIndex != publishedIndex else { return false }
    memory.put(availableIndex, at: driverArea + 2)
    BenchMemory.fence()
    // vring_need_event of section 2.7.10.
    let event = memory.get(deviceArea + 4 + size * 8, UInt16.self)
    defer { publishedIndex = availableIndex }
    return availableIndex &- event &- 1 < availableIndex &- publishedIndex
  }

  private func publishPacked() -> Bool {
    guard added > 0 else { return false }
    defer { added = 0 }
    let suppression = memory.get(deviceArea, UInt32.self)
    let flags = UInt16(suppression >> 16) & 3
    guard flags == Event.descriptor else { return flags != Event.disable }
    var event = UInt16(suppression & 0x7FFF)
    if (suppression & 0x8000 != 0) != wrap { event &-= UInt16(size) }
    return UInt16(place) &- event &- 1 < added
  }

  /// The slot of the next chain that the device gave back.
  func takeUsed() -> Int? {
    if isPacked {
      let at = descriptors + usedPlace * 16
      let flags = memory.get(at + 14, UInt16.self)
      guard (flags & Flag.available != 0) == usedWrap, (flags & Flag.used != 0) == usedWrap else {
        return nil
      }
      BenchMemory.fence()
      usedPlace += pieces
      if usedPlace >= size {
        usedPlace -= size
        usedWrap.toggle()
      }
      return Int(memory.get(at + 12, UInt16.self))
    }
    guard memory.get(deviceArea + 2, UInt16.self) != usedIndex else { return nil }
    BenchMemory.fence()
    let head = memory.get(deviceArea + 4 + Int(usedIndex) % size * 8, UInt32.self)
    usedIndex &+= 1
    return Int(head) / pieces
  }

  /// Asks for an interrupt when the next chain comes back; returns whether one has already.
  func arm() -> Bool {
    if isPacked {
      memory.put(UInt16(usedPlace) | (usedWrap ? 0x8000 : 0), at: driverArea)
      memory.put(Event.descriptor, at: driverArea + 2)
      BenchMemory.fence()
      let flags = memory.get(descriptors + usedPlace * 16 + 14, UInt16.self)
      return (flags & Flag.available != 0) == usedWrap && (flags & Flag.used != 0) == usedWrap
    }
    memory.put(usedIndex, at: driverArea + 4 + size * 2)
    BenchMemory.fence()
    return memory.get(deviceArea + 2, UInt16.self) != usedIndex
  }
}
