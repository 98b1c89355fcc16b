import LinuxSystem

/// Host clusters side by side.
struct HostRun: Equatable {
  let first: UInt64
  let count: Int
  /// They were never written, and read as zeros.
  let isVirgin: Bool
}

extension Qcow2Metadata {
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
  func allocate(upTo count: Int) throws(DiskError) -> HostRun? {
    while true {
      let index = freeHint >> UInt64(geometry.refcountBlockBits)
      guard index < UInt64(refcountTable.count) else { return nil }
      guard offset(of: freeHint + UInt64(count) + 1) < Qcow2Geometry.hostLimit else {
        throw DiskError(kind: .noSpace, context: "image \(path) cannot become larger")
      }
      guard let block = try refcountBlock(Int(index)) else {
        try makeBlock(Int(index))
        continue
      }
      if let run = try takeFree(block, upTo: count) { return run }
    }
  }

  /// From `freeHint` on, which is in `block` and moves on.
  private func takeFree(_ block: MetadataTable, upTo count: Int) throws(DiskError) -> HostRun? {
    let order = geometry.refcountOrder
    let base = freeHint - UInt64(blockIndex(freeHint))
    var index = blockIndex(freeHint)
    while index < geometry.refcountBlockEntries, block.refcount(index, order: order) != 0 {
      index += 1
    }
    freeHint = base + UInt64(index)
    guard index < geometry.refcountBlockEntries else { return nil }
    var taken = 0
    while taken < count, index + taken < geometry.refcountBlockEntries,
      block.refcount(index + taken, order: order) == 0
    {
      guard kinds[freeHint + UInt64(taken)] == nil else {
        throw corrupt("cluster \(freeHint + UInt64(taken)) is metadata and counts as free")
      }
      block.setRefcount(index + taken, order: order, to: 1)
      taken += 1
    }
    return take(taken)
  }

  /// The clusters from `freeHint` on are in use now.
  private func take(_ count: Int) -> HostRun {
    let run = HostRun(first: freeHint, count: count, isVirgin: freeHint >= virginCluster)
    freeHint += UInt64(count)
    endCluster = max(endCluster, freeHint)
    if storage.growsWithZeros { virginCluster = max(virginCluster, freeHint) }
    return run
  }

  /// A block for the counts of clusters that had none, in the first of them that is free. It
  /// counts itself.
  private func makeBlock(_ index: Int) throws(DiskError) {
    guard kinds[freeHint] == nil else {
      throw corrupt("cluster \(freeHint) is metadata and counts as free")
    }
    let run = take(1)
    let block = addBlock(index, at: run.first)
    block.setRefcount(blockIndex(run.first), order: geometry.refcountOrder, to: 1)
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
    freeHint = min(freeHint, cluster)
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
