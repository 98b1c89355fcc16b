import LinuxSystem

/// Host clusters side by side.
struct HostRun: Equatable {
  let first: UInt64
  let count: Int
  /// They were never written, and read as zeros.
  let isVirgin: Bool
}

/// Where in an image free clusters are looked for.
enum ClusterArea {
  /// From its beginning on.
  case anywhere
  /// Behind the room that is left for tables.
  case data
}

extension Qcow2Metadata {
  /// Data begins at a multiple of this: the page cache and file systems keep what is aligned
  /// in larger pieces.
  static let dataAlignment: UInt64 = 2 << 20

  /// Behind all tables that a disk of this size can need, in a file, where a gap takes no
  /// storage. Small clusters, for which the gap would be large, gain nothing by it.
  static func dataStart(_ geometry: Qcow2Geometry, size: UInt64) -> UInt64 {
    guard geometry.clusterSize >= 64 << 10 else { return 0 }
    let data = geometry.clusters(for: size)
    let l2Tables = geometry.l1Count(for: size)
    let blocks = (data + l2Tables) >> UInt64(geometry.refcountBlockBits) + 1
    let aligned = max(1, dataAlignment >> UInt64(geometry.clusterBits))
    // Header, refcount table and L1 table.
    let others = 2 + geometry.clusters(for: l2Tables * 8)
    return (others + l2Tables + blocks + aligned - 1) / aligned * aligned
  }

  private func hint(_ area: ClusterArea) -> UInt64 {
    area == .data ? max(dataHint, dataStart, freeHint) : freeHint
  }

  private func setHint(_ area: ClusterArea, _ cluster: UInt64) {
    switch area {
    case .anywhere: freeHint = cluster
    case .data: dataHint = cluster
    }
  }

  func refcountBlock(_ index: Int) throws(DiskError) -> MetadataTable? {
    let offset = refcountTable[index]
    guard offset != 0 else { return nil }
    if let block = refcountBlocks.find(offset) { return block }
    return try load(offset, into: refcountBlocks)
  }

  /// The stored reference count of a host cluster, with what was changed since.
  func refcount(_ cluster: UInt64) throws(DiskError) -> UInt64 {
    let index = cluster >> UInt64(geometry.refcountBlockBits)
    guard index < UInt64(refcountTable.count), let block = try refcountBlock(Int(index)) else {
      return 0
    }
    return block.refcount(blockIndex(cluster), order: geometry.refcountOrder)
  }

  func blockIndex(_ cluster: UInt64) -> Int {
    Int(cluster & UInt64(geometry.refcountBlockEntries - 1))
  }

  /// Takes free clusters, the first ones that there are.
  ///
  /// - Returns: `nil`, with nothing taken, when the refcount table has to grow first.
  func allocate(
    upTo count: Int, _ area: ClusterArea = .anywhere
  ) throws(DiskError) -> HostRun? {
    while true {
      let hint = hint(area)
      let index = hint >> UInt64(geometry.refcountBlockBits)
      guard index < UInt64(refcountTable.count) else { return nil }
      guard offset(of: hint + UInt64(count) + 1) < Qcow2Geometry.hostLimit else {
        throw DiskError(kind: .noSpace, context: "image \(path) cannot become larger")
      }
      guard let block = try refcountBlock(Int(index)) else {
        try makeBlock(Int(index), area)
        continue
      }
      if let run = try takeFree(block, hint, upTo: count, area) { return run }
    }
  }

  /// From `hint` on, which is in `block`.
  private func takeFree(
    _ block: MetadataTable, _ hint: UInt64, upTo count: Int, _ area: ClusterArea
  ) throws(DiskError) -> HostRun? {
    let order = geometry.refcountOrder
    var index = blockIndex(hint)
    let base = hint - UInt64(index)
    while index < geometry.refcountBlockEntries, block.refcount(index, order: order) != 0 {
      index += 1
    }
    let first = base + UInt64(index)
    setHint(area, first)
    guard index < geometry.refcountBlockEntries else { return nil }
    var taken = 0
    while taken < count, index + taken < geometry.refcountBlockEntries,
      block.refcount(index + taken, order: order) == 0
    {
      guard kinds[first + UInt64(taken)] == nil else {
        throw corrupt("cluster \(first + UInt64(taken)) is metadata and counts as free")
      }
      block.setRefcount(index + taken, order: order, to: 1)
      taken += 1
    }
    return take(first, taken, area)
  }

  /// The clusters from `first` on, where `area` was searched up to, are in use now.
  private func take(_ first: UInt64, _ count: Int, _ area: ClusterArea) -> HostRun {
    let run = HostRun(first: first, count: count, isVirgin: first >= virginCluster)
    let end = first + UInt64(count)
    setHint(area, end)
    endCluster = max(endCluster, end)
    if storage.growsWithZeros { virginCluster = max(virginCluster, end) }
    return run
  }

  /// A block for the counts of clusters that had none: where the tables are, or in the first
  /// of those clusters that is free, so that it counts itself.
  private func makeBlock(_ index: Int, _ area: ClusterArea) throws(DiskError) {
    let ownArea = hint(.anywhere) >> UInt64(geometry.refcountBlockBits) == UInt64(index)
    if area == .data, !ownArea, let run = try allocate(upTo: 1) {
      // Looking for it may have made the block.
      guard refcountTable[index] == 0 else { return pendingFrees.append(run.first) }
      _ = addBlock(index, at: run.first)
    } else {
      let hint = hint(area)
      guard kinds[hint] == nil else {
        throw corrupt("cluster \(hint) is metadata and counts as free")
      }
      let run = take(hint, 1, area)
      let block = addBlock(index, at: run.first)
      block.setRefcount(blockIndex(run.first), order: geometry.refcountOrder, to: 1)
    }
    dirtyRefcountTable.insert(index / 64)
  }

  /// A new block in memory, all of which is to be stored.
  func addBlock(_ index: Int, at cluster: UInt64) -> MetadataTable {
    let block = MetadataTable(
      offset: offset(of: cluster), size: geometry.clusterSize, isReachable: false)
    block.dirtyAll()
    refcountBlocks.insert(block)
    refcountTable[index] = block.offset
    kinds[cluster] = .refcountBlock
    return block
  }

  /// One reference less. Nothing that is stored or under way needs it any more.
  func release(_ cluster: UInt64) throws(DiskError) -> Bool {
    let index = cluster >> UInt64(geometry.refcountBlockBits)
    guard index < UInt64(refcountTable.count), let block = try refcountBlock(Int(index)) else {
      throw corrupt("cluster \(cluster), which was in use, counts as free")
    }
    let count = block.refcount(blockIndex(cluster), order: geometry.refcountOrder)
    guard count > 0 else { throw corrupt("cluster \(cluster), which was in use, counts as free") }
    block.setRefcount(blockIndex(cluster), order: geometry.refcountOrder, to: count - 1)
    guard count == 1 else { return false }
    (freeHint, dataHint) = (min(freeHint, cluster), min(dataHint, cluster))
    if compressedCursor != 0, self.cluster(at: compressedCursor) == cluster { compressedCursor = 0 }
    return true
  }

  /// A table of the active L1 table that may be written in place: a new one, or a copy of
  /// one that snapshots share.
  ///
  /// - Returns: `nil` when the refcount table has to grow first.
  func ownL2Table(_ index: Int) throws(DiskError) -> MetadataTable? {
    let former = try l2Table(index)
    if let former, l1[index] & L1Entry.isOwn != 0 { return former }
    guard let run = try allocate(upTo: 1) else { return nil }
    let table = MetadataTable(
      offset: offset(of: run.first), size: geometry.clusterSize, isReachable: false)
    table.dirtyAll()
    if let former {
      table.copy(former)
      let cluster = cluster(at: former.offset)
      pendingFrees.append(cluster)
      kinds[cluster] = nil
      l2Tables.remove(former.offset)
    }
    l2Tables.insert(table)
    kinds[run.first] = .l2
    l1[index] = table.offset | L1Entry.isOwn
    dirtyL1.insert(index / 64)
    return table
  }

  /// Puts `mapping` in the place of what an entry said, which is let go of.
  func setMapping(
    _ mapping: ClusterMapping, _ index: Int, of table: MetadataTable
  ) throws(DiskError) {
    let former = try self.mapping(table[index])
    table[index] = mapping.entry(geometry)
    let kept: UInt64? =
      switch mapping {
      case .data(let host, _), .zero(.some(let host), _): cluster(at: host)
      default: nil
      }
    for cluster in hostClusters(former) where cluster != kept { pendingFrees.append(cluster) }
  }

  /// Each of them has a reference for this mapping.
  func hostClusters(_ mapping: ClusterMapping) -> Range<UInt64> {
    switch mapping {
    case .unallocated, .zero(nil, _): 0..<0
    case .data(let host, _), .zero(.some(let host), _):
      cluster(at: host)..<cluster(at: host) + 1
    case .compressed(let host, let count):
      cluster(at: host)..<cluster(at: host + UInt64(count) - 1) + 1
    }
  }
}
