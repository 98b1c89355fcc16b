import LinuxSystem

extension Qcow2Metadata {
  /// Whether every entry of the refcount table is stored.
  var isRefcountTableStored: Bool { dirtyRefcountTable.isEmpty }

  /// Gives the image a larger refcount table, behind all clusters that the present one
  /// counts. Nothing of the present one is dirty, nor being stored.
  ///
  /// The new table and the blocks that count it and themselves are durable before the header
  /// leads to them, so that a crash leaves one or the other.
  func growRefcountTable() throws(DiskError) {
    let first = UInt64(refcountTable.count) << UInt64(geometry.refcountBlockBits)
    let (blocks, entries) = try sizeOfLargerTable(from: first)
    let tableClusters = entries >> geometry.l2Bits
    let place = first + UInt64(blocks)
    guard offset(of: place + UInt64(tableClusters)) < Qcow2Geometry.hostLimit else {
      throw DiskError(kind: .noSpace, context: "image \(path) cannot become larger")
    }
    for cluster in first..<place + UInt64(tableClusters) where kinds[cluster] != nil {
      throw corrupt("cluster \(cluster) is metadata and is not counted")
    }
    let former = (table: refcountTable, offset: header.refcountTableOffset)
    let formerClusters = header.refcountTableClusters
    let formerKinds = kinds
    refcountTable += [UInt64](repeating: 0, count: entries - refcountTable.count)
    do {
      try fillLargerTable(former.table.count, first, blocks: blocks, tableClusters: tableClusters)
      try switchRefcountTable(offset: offset(of: place), clusters: UInt32(tableClusters))
    } catch {
      for number in 0..<UInt64(blocks) { refcountBlocks.remove(offset(of: first + number)) }
      (refcountTable, kinds) = (former.table, formerKinds)
      throw error
    }
    let end = place + UInt64(tableClusters)
    (freeHint, dataHint) = (min(freeHint, first), min(dataHint, first))
    endCluster = max(endCluster, end)
    if storage.growsWithZeros { virginCluster = max(virginCluster, end) }
    let start = cluster(at: former.offset)
    pendingFrees += start..<start + UInt64(formerClusters)
  }

  /// How many blocks it takes to count themselves and the table, and its entries: half as
  /// many again as now, at least, in whole clusters.
  private func sizeOfLargerTable(
    from first: UInt64
  ) throws(DiskError) -> (blocks: Int, entries: Int) {
    var blocks = 1
    while true {
      let wanted = max(refcountTable.count + blocks, refcountTable.count * 3 / 2)
      let entries = wanted + wanted.padding(to: geometry.l2Entries)
      guard UInt64(entries) * 8 <= Qcow2Header.Limit.refcountTableBytes else {
        throw DiskError(
          kind: .noSpace,
          context: "image \(path) cannot count more clusters; convert it to larger ones")
      }
      let counted = blocks + entries >> geometry.l2Bits
      let needed = (counted + geometry.refcountBlockEntries - 1) >> geometry.refcountBlockBits
      if needed <= blocks { return (blocks, entries) }
      blocks = needed
    }
  }

  private func fillLargerTable(
    _ index: Int, _ first: UInt64, blocks: Int, tableClusters: Int
  ) throws(DiskError) {
    let added = (0..<blocks).map { addBlock(index + $0, at: first + UInt64($0)) }
    for number in 0..<blocks + tableClusters {
      added[number >> geometry.refcountBlockBits].setRefcount(
        number & (geometry.refcountBlockEntries - 1), order: geometry.refcountOrder, to: 1)
      kinds[first + UInt64(number)] = number < blocks ? .refcountBlock : .refcountTable
    }
    try reading("write a larger refcount table") { () throws(SystemError) in
      for block in added {
        for write in block.copies(of: block.takeDirty()) {
          try storage.write(write.bytes, at: write.offset)
        }
        block.isReachable = true
      }
      try storage.write(refcountTable.tableBytes, at: offset(of: first + UInt64(blocks)))
      try storage.synchronize()
    }
  }
}
