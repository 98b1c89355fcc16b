import DeviceModel

/// VRAM, and which of its pages the adapter itself wrote since the last refresh.
///
/// The size is a power of two, so that every address can be wrapped into it.
/// vCPUs write the same bytes through the linear frame buffer at any time; the
/// device then sees a mixture of old and new, as a monitor would.
struct VideoMemory {
  private let storage: any SharedBytes
  private(set) var dirty: DirtyPages
  /// Whether plane 2 may have changed, where text modes keep their fonts.
  var fontsChanged = true

  let count: Int
  /// `address & mask` is always inside.
  let mask: Int
  private let base: UnsafeMutablePointer<UInt8>

  /// - Returns: nil when `storage` is not a power of two of at least 1 MiB.
  init?(_ storage: any SharedBytes) {
    let count = storage.bytes.count
    guard count >= 1 << 20, count & (count - 1) == 0, let start = storage.bytes.baseAddress
    else { return nil }
    self.storage = storage
    self.count = count
    mask = count - 1
    dirty = DirtyPages(pageCount: count / DirtyPages.pageSize)
    // SAFETY: `storage` is kept for as long as this value lives, and SharedBytes
    // promises that its `count` bytes stay mapped; UInt8 has no alignment.
    base = start.assumingMemoryBound(to: UInt8.self)
  }

  /// For renderers, which mask every address with `mask`.
  var bytes: UnsafePointer<UInt8> { UnsafePointer(base) }

  subscript(address: Int) -> UInt8 {
    get {
      // SAFETY: masked, so inside the mapping.
      base[address & mask]
    }
    set {
      // SAFETY: masked, so inside the mapping.
      base[address & mask] = newValue
      markDirty(page: (address & mask) / DirtyPages.pageSize)
    }
  }

  /// The four plane bytes at plane address `index`; plane 0 is the lowest byte.
  func planes(at index: Int) -> UInt32 {
    let address = (index &* 4) & mask
    // SAFETY: masked and a multiple of 4, so four bytes inside the mapping, which
    // begins on a page.
    return UnsafeRawPointer(base + address).loadUnaligned(as: UInt32.self)
  }

  mutating func setPlanes(at index: Int, to value: UInt32) {
    let address = (index &* 4) & mask
    // SAFETY: as in `planes(at:)`.
    UnsafeMutableRawPointer(base + address).storeBytes(of: value, as: UInt32.self)
    markDirty(page: address / DirtyPages.pageSize)
  }

  mutating func clear(count: Int) {
    let count = min(max(count, 0), self.count)
    // SAFETY: `count` was clamped to the mapping.
    base.update(repeating: 0, count: count)
    for page in 0..<(count + DirtyPages.pageSize - 1) / DirtyPages.pageSize {
      markDirty(page: page)
    }
  }

  /// Takes the pages that the adapter wrote itself, joined with `others`.
  mutating func takeDirty(joinedWith others: DirtyPages) -> DirtyPages {
    var joined = dirty
    for index in 0..<min(joined.words.count, others.words.count) {
      joined.words[index] |= others.words[index]
    }
    for index in dirty.words.indices { dirty.words[index] = 0 }
    return joined
  }

  private mutating func markDirty(page: Int) {
    dirty.words[page / 64] |= 1 << UInt64(page % 64)
  }
}
