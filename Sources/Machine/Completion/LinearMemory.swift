/// Memory by linear address, as an instruction at the present privilege level sees it:
/// page walks with their permissions, accessed and dirty bits, and faults
/// (SDM vol. 3, chapter 4).
struct LinearMemory {
  let state: ProcessorState
  let port: any CompletionPort

  struct Access {
    var isWrite = false
    /// By the processor itself (descriptor tables): at privilege level 0 whatever CPL is.
    var isImplicit = false
  }

  func read(
    _ address: UInt64, count: Int, isImplicit: Bool = false
  ) throws(CompletionStop) -> [UInt8] {
    var bytes: [UInt8] = []
    for (start, length) in pieces(address, count) {
      let physical = try translate(start, Access(isWrite: false, isImplicit: isImplicit))
      bytes += port.readPhysical(physical, count: length)
    }
    return bytes
  }

  /// Writes all of it or, if a page faults, nothing.
  func write(
    _ address: UInt64, _ bytes: [UInt8], isImplicit: Bool = false
  ) throws(CompletionStop) {
    var targets: [(physical: UInt64, length: Int)] = []
    for (start, length) in pieces(address, bytes.count) {
      let physical = try translate(start, Access(isWrite: true, isImplicit: isImplicit))
      targets.append((physical, length))
    }
    var rest = bytes[...]
    for (physical, length) in targets {
      port.writePhysical(physical, Array(rest.prefix(length)))
      rest = rest.dropFirst(length)
    }
  }

  /// Parts of the range that lie in one page each.
  private func pieces(_ address: UInt64, _ count: Int) -> [(UInt64, Int)] {
    var pieces: [(UInt64, Int)] = []
    var done = 0
    while done < count {
      let start = wrapped(address &+ UInt64(done))
      let length = min(count - done, 4096 - Int(start & 4095))
      pieces.append((start, length))
      done += length
    }
    return pieces
  }

  private func wrapped(_ address: UInt64) -> UInt64 {
    state.isLong ? address : address & 0xFFFF_FFFF
  }

  // MARK: Page walk

  /// - Throws: `#PF`.
  func translate(_ address: UInt64, _ access: Access) throws(CompletionStop) -> UInt64 {
    guard state.special.cr0 & (1 << 31) != 0 else { return address & 0xFFFF_FFFF }
    let isUser = state.privilegeLevel == 3 && !access.isImplicit
    return try walk(address, access, isUser: isUser)
  }

  private struct Paging {
    var levels: Int
    var entrySize: Int
    var root: UInt64
    /// The root holds four entries without permissions (PAE).
    var hasPointers = false
  }

  private var paging: Paging {
    let (cr3, cr4) = (state.special.cr3, state.special.cr4)
    if state.isLong {
      return Paging(
        levels: cr4 & (1 << 12) != 0 ? 5 : 4, entrySize: 8, root: cr3 & 0xF_FFFF_FFFF_F000)
    }
    if cr4 & (1 << 5) != 0 {
      return Paging(levels: 3, entrySize: 8, root: cr3 & 0xFFFF_FFE0, hasPointers: true)
    }
    return Paging(levels: 2, entrySize: 4, root: cr3 & 0xFFFF_F000)
  }

  private func walk(
    _ address: UInt64, _ access: Access, isUser: Bool
  ) throws(CompletionStop) -> UInt64 {
    let paging = paging
    let indexBits: UInt64 = paging.entrySize == 8 ? 9 : 10
    let code: UInt32 = (access.isWrite ? 2 : 0) | (isUser ? 4 : 0)
    var table = paging.root
    var (mayWrite, mayUser) = (true, true)
    var visited: [UInt64] = []
    for level in stride(from: paging.levels, through: 1, by: -1) {
      let shift = 12 + UInt64(level - 1) * indexBits
      let index = address >> shift & ((1 << indexBits) - 1)
      let place = table &+ index * UInt64(paging.entrySize)
      let entry = UInt64(
        littleEndian: port.readPhysical(place, count: paging.entrySize))
      guard entry & 1 != 0 else {
        throw .fault(.pageFault(address, code: code))
      }
      if !(paging.hasPointers && level == 3) {
        mayWrite = mayWrite && entry & 2 != 0
        mayUser = mayUser && entry & 4 != 0
        visited.append(place)
      }
      let isLarge = level > 1 && entry & 0x80 != 0 && isLargeAllowed(level, paging)
      guard level == 1 || isLarge else {
        table = entry & 0xF_FFFF_FFFF_F000
        continue
      }
      try check(
        access, isUser: isUser, mayWrite: mayWrite, mayUser: mayUser, address, code | 1)
      mark(visited, isWrite: access.isWrite)
      let offset = address & ((1 << shift) - 1)
      return frame(entry, shift, paging) | offset
    }
    throw .fault(.pageFault(address, code: code))
  }

  private func isLargeAllowed(_ level: Int, _ paging: Paging) -> Bool {
    switch (paging.entrySize, level) {
    case (4, 2): state.special.cr4 & (1 << 4) != 0
    case (8, 2): true
    case (8, 3): !paging.hasPointers
    default: false
    }
  }

  private func frame(_ entry: UInt64, _ shift: UInt64, _ paging: Paging) -> UInt64 {
    let base = entry & 0xF_FFFF_FFFF_F000 & ~((1 << shift) - 1)
    guard paging.entrySize == 4, shift == 22 else { return base }
    // PSE-36: bits 20:13 of the entry are 39:32 of the address.
    return (entry & 0xFFC0_0000) | (entry >> 13 & 0xFF) << 32
  }

  private func check(
    _ access: Access, isUser: Bool, mayWrite: Bool, mayUser: Bool, _ address: UInt64,
    _ code: UInt32
  ) throws(CompletionStop) {
    let isProtecting = isUser || state.special.cr0 & (1 << 16) != 0
    let isGuarded =
      !isUser && mayUser && state.special.cr4 & (1 << 21) != 0
      && (access.isImplicit || !state.flags.contains(.alignmentCheck))
    guard !(isUser && !mayUser), !(access.isWrite && !mayWrite && isProtecting), !isGuarded else {
      throw .fault(.pageFault(address, code: code))
    }
  }

  /// Accessed bits on the way, the dirty bit at its end.
  private func mark(_ entries: [UInt64], isWrite: Bool) {
    for (index, place) in entries.enumerated() {
      let isLeaf = index == entries.count - 1
      port.setBits(isLeaf && isWrite ? 0x60 : 0x20, physical: place)
    }
  }
}
