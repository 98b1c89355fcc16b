import LinuxSystem

/// An L2 table or refcount block in memory, as it is stored. Belongs to the lock of its
/// image.
final class MetadataTable {
  /// Where it is in the image.
  let offset: UInt64
  // SAFETY: allocated here, freed when nobody can reach it any more, and reached through
  // checked indices only.
  private let memory: UnsafeMutableRawBufferPointer
  /// A bit for each part that was changed since it was stored.
  private(set) var dirtyParts: UInt64 = 0
  /// Whether what is stored may lead to it, so that it must not lead to what is not stored.
  var isReachable: Bool
  /// A copy of changes is on its way to the image.
  var isBeingWritten = false
  fileprivate var wasUsed = true

  /// Zeros.
  init(offset: UInt64, size: Int, isReachable: Bool) {
    self.offset = offset
    self.isReachable = isReachable
    // SAFETY: freed by deinit.
    memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 512)
    memory.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { memory.deallocate() }

  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(memory) }
  var isDirty: Bool { dirtyParts != 0 }

  /// There are 64 parts at most, each of one or more whole sectors.
  private var partSize: Int { max(512, memory.count / 64) }

  func load(from storage: any ImageStorage) throws(SystemError) {
    try storage.readPadded(into: [memory], offset: offset)
  }

  func copy(_ other: MetadataTable) {
    memory.copyMemory(from: other.bytes)
    dirtyAll()
  }

  subscript(index: Int) -> UInt64 {
    get { UInt64(bigEndian: memory.load(fromByteOffset: index * 8, as: UInt64.self)) }
    set {
      memory.storeBytes(of: newValue.bigEndian, toByteOffset: index * 8, as: UInt64.self)
      dirtyParts |= 1 << UInt64(index * 8 / partSize)
    }
  }

  func refcount(_ index: Int, order: Int) -> UInt64 {
    RefcountCodec.value(bytes, index, order: order)
  }

  func setRefcount(_ index: Int, order: Int, to value: UInt64) {
    RefcountCodec.set(memory, index, order: order, to: value)
    dirtyParts |= 1 << UInt64((index << order) / 8 / partSize)
  }

  func dirtyAll() {
    let parts = memory.count / partSize
    dirtyParts = parts == 64 ? .max : (1 << UInt64(parts)) - 1
  }

  /// The parts that were changed count as stored from now on.
  func takeDirty() -> UInt64 {
    defer { dirtyParts = 0 }
    return dirtyParts
  }

  func putBackDirty(_ parts: UInt64) { dirtyParts |= parts }

  /// Copies of `parts`, neighbours together, and where they belong.
  func copies(of parts: UInt64) -> [MetadataWrite] {
    var writes: [MetadataWrite] = []
    var part = 0
    while part < 64, parts >> UInt64(part) != 0 {
      let first = part + (parts >> UInt64(part)).trailingZeroBitCount
      part = first + (~(parts >> UInt64(first))).trailingZeroBitCount
      let range = first * partSize..<min(part * partSize, memory.count)
      writes.append(
        MetadataWrite(offset: offset + UInt64(range.lowerBound), bytes: Array(memory[range])))
    }
    return writes
  }
}

/// Bytes on their way to the image.
struct MetadataWrite {
  let offset: UInt64
  let bytes: [UInt8]
}

/// The tables of one kind that are in memory. What is not used goes first, except for what
/// has not been stored (a commit that is made in time keeps that below half).
final class TableCache {
  private let capacity: Int
  private let tableSize: Int
  private var tables: [MetadataTable] = []
  private var places: [UInt64: Int] = [:]
  private var hand = 0
  private var latest: MetadataTable?

  /// - Parameter bytes: how much memory it may take; some tables fit in any case.
  init(tableSize: Int, bytes: Int) {
    self.tableSize = tableSize
    capacity = min(max(4, bytes / tableSize), 8192)
  }

  /// Whether what was changed ought to be stored before more is.
  private(set) var isUnderPressure = false

  /// What is to be stored.
  func takeDirtyTables() -> [MetadataTable] {
    isUnderPressure = false
    return tables.filter(\.isDirty)
  }

  func find(_ offset: UInt64) -> MetadataTable? {
    if let latest, latest.offset == offset { return latest }
    guard let place = places[offset] else { return nil }
    let table = tables[place]
    table.wasUsed = true
    latest = table
    return table
  }

  func insert(_ table: MetadataTable) {
    while tables.count >= capacity, evict() {}
    if tables.count >= capacity / 2 {
      let kept = tables.reduce(0) { $0 + ($1.isDirty || $1.isBeingWritten ? 1 : 0) }
      isUnderPressure = kept > capacity / 2
    }
    places[table.offset] = tables.count
    tables.append(table)
    latest = table
  }

  /// What is at `offset` is no table any more.
  func remove(_ offset: UInt64) {
    guard let place = places.removeValue(forKey: offset) else { return }
    if latest?.offset == offset { latest = nil }
    let last = tables.removeLast()
    if place < tables.count {
      tables[place] = last
      places[last.offset] = place
    }
  }

  /// - Returns: whether there was one that could go.
  private func evict() -> Bool {
    for _ in 0..<2 * tables.count {
      hand = hand + 1 < tables.count ? hand + 1 : 0
      let table = tables[hand]
      guard !table.isDirty, !table.isBeingWritten else { continue }
      guard table.wasUsed else {
        remove(table.offset)
        return true
      }
      table.wasUsed = false
    }
    return false
  }
}
