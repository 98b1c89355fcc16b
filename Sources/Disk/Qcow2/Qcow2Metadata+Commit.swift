import LinuxSystem

/// What was changed in memory, on its way to the image in an order that leaves no pointer to
/// what is not there, whenever power goes: data and reference counts before the tables that
/// lead to them, and those before the tables above. What nothing refers to any more counts
/// as free only afterwards. At worst, clusters are counted that nothing refers to.
struct MetadataCommit {
  /// Each is durable before the next one is begun; the data is with the first one.
  fileprivate(set) var phases: [[MetadataWrite]] = [[]]
  fileprivate var l2: [(table: MetadataTable, parts: UInt64)] = []
  fileprivate var blocks: [(table: MetadataTable, parts: UInt64)] = []
  fileprivate var l1: Set<Int> = []
  fileprivate var refcountTable: Set<Int> = []
  fileprivate var frees: [UInt64] = []

  /// Not under the image's lock.
  func write(to storage: any ImageStorage) throws(SystemError) {
    for (number, phase) in phases.enumerated() where number == 0 || !phase.isEmpty {
      for write in phase { try storage.write(write.bytes, at: write.offset) }
      try storage.synchronize()
    }
  }
}

extension Qcow2Metadata {
  /// Whether it is time to store what was changed.
  var wantsCommit: Bool {
    pendingFrees.count >= Self.mostPendingFrees || l2Tables.isUnderPressure
      || refcountBlocks.isUnderPressure
  }

  /// - Parameter counts: whether reference counts are stored too, which those with lazy
  ///   refcounts need not be while the image is marked as dirty.
  func takeCommit(counts: Bool) -> MetadataCommit {
    var commit = MetadataCommit()
    commit.frees = pendingFrees
    pendingFrees = []
    var tables: [MetadataWrite] = []
    for table in l2Tables.takeDirtyTables() {
      let parts = take(table)
      commit.l2.append((table, parts))
      if table.isReachable || isCautious {
        tables += table.copies(of: parts)
      } else {
        commit.phases[0] += table.copies(of: parts)
      }
    }
    if counts { takeCounts(&commit) }
    commit.l1 = dirtyL1
    dirtyL1 = []
    let pointers = commit.l1.sorted().map { write($0, of: l1, at: header.l1Offset) }
    if isCautious {
      commit.phases += [tables, pointers]
    } else {
      commit.phases.append(tables + pointers)
    }
    return commit
  }

  private func takeCounts(_ commit: inout MetadataCommit) {
    for block in refcountBlocks.takeDirtyTables() {
      let parts = take(block)
      commit.blocks.append((block, parts))
      commit.phases[0] += block.copies(of: parts)
    }
    commit.refcountTable = dirtyRefcountTable
    dirtyRefcountTable = []
    commit.phases.append(
      commit.refcountTable.sorted().map {
        write($0, of: refcountTable, at: header.refcountTableOffset)
      })
  }

  private func take(_ table: MetadataTable) -> UInt64 {
    table.isBeingWritten = true
    return table.takeDirty()
  }

  /// A sector of a table that is in memory as a whole.
  private func write(_ sector: Int, of table: [UInt64], at offset: UInt64) -> MetadataWrite {
    let entries = table[sector * 64..<min(table.count, sector * 64 + 64)]
    return MetadataWrite(offset: offset + UInt64(sector) * 512, bytes: entries.tableBytes)
  }

  /// All of it is durable.
  func finish(_ commit: MetadataCommit) throws(DiskError) {
    isCautious = false
    for (table, _) in commit.l2 + commit.blocks {
      table.isReachable = true
      table.isBeingWritten = false
    }
    if !commit.frees.isEmpty { durableFrees.append((epochs.close(), commit.frees)) }
    try applyFrees()
  }

  /// Some of it may be stored.
  func fail(_ commit: MetadataCommit) {
    isCautious = true
    for (table, parts) in commit.l2 + commit.blocks {
      table.putBackDirty(parts)
      table.isBeingWritten = false
    }
    dirtyL1.formUnion(commit.l1)
    dirtyRefcountTable.formUnion(commit.refcountTable)
    pendingFrees = commit.frees + pendingFrees
  }

  func endOperation(_ epoch: UInt64) throws(DiskError) {
    epochs.end(epoch)
    if !durableFrees.isEmpty { try applyFrees() }
  }

  /// Clusters that neither the stored tables nor anybody under way refer to are free.
  private func applyFrees() throws(DiskError) {
    while let batch = durableFrees.first, epochs.isOver(batch.epoch) {
      durableFrees.removeFirst()
      freeGeneration += 1
      var freed: [UInt64] = []
      for cluster in batch.clusters where try release(cluster) { freed.append(cluster) }
      for cluster in freed where kinds[cluster] == .refcountTable || kinds[cluster] == .l1 {
        kinds[cluster] = nil
      }
      if discardsStorage { punch(freed.sorted()) }
    }
  }

  /// Storage that cannot be let go of is used again some time.
  private func punch(_ clusters: [UInt64]) {
    var rest = clusters[...]
    while let first = rest.popFirst() {
      var next = first + 1
      while rest.first == next {
        rest.removeFirst()
        next += 1
      }
      let (start, count) = (offset(of: first), offset(of: next - first))
      guard (try? storage.punch(offset: start, count: count)) == true else { return }
    }
  }
}

/// The header's fields, which are within one sector.
extension Qcow2Metadata {
  private func storeSector() throws(DiskError) {
    try reading("write the header") { () throws(SystemError) in
      try storage.write(sector, at: 0)
      try storage.synchronize()
    }
  }

  private func setFeatures(incompatible: UInt64, autoclear: UInt64) throws(DiskError) {
    guard header.version >= 3,
      (incompatible, autoclear) != (header.incompatible, header.autoclear)
    else { return }
    sector.put(incompatible, at: 72)
    sector.put(autoclear, at: 88)
    try storeSector()
    (header.incompatible, header.autoclear) = (incompatible, autoclear)
  }

  /// Before anything is written: dirty bitmaps are not kept up to date here, and features
  /// that are not known must be told so, by their autoclear bits; lazy refcounts need the
  /// dirty bit.
  func prepareToWrite() throws(DiskError) {
    guard !isPrepared else { return }
    guard !header.isCorrupt else {
      throw corrupt("it was marked so when a contradiction was found")
    }
    let dirty = header.hasLazyRefcounts ? Qcow2Header.Incompatible.dirty : 0
    try setFeatures(incompatible: header.incompatible | dirty, autoclear: 0)
    isPrepared = true
  }

  /// A contradiction was found while the image was being written: nobody writes it any more.
  func markCorrupt() {
    isPrepared = false
    let incompatible = header.incompatible | Qcow2Header.Incompatible.corrupt
    try? setFeatures(incompatible: incompatible, autoclear: header.autoclear)
    // So also where it could not be stored, as in version 2.
    header.incompatible = incompatible
  }

  /// All reference counts are stored.
  func markClean() throws(DiskError) {
    isPrepared = false
    try setFeatures(
      incompatible: header.incompatible & ~Qcow2Header.Incompatible.dirty,
      autoclear: header.autoclear)
  }

  /// Another header, of which at any time either one is stored.
  func replaceHeader(_ replacement: Qcow2Header) throws(DiskError) {
    var replacement = replacement
    let (former, path) = (header, path)
    let steps = try explaining(path) { () throws(FormatProblem) in
      try replacement.replacing(former)
    }
    try reading("write the header") { () throws(SystemError) in
      for step in steps {
        try storage.write(step.bytes, at: UInt64(step.offset))
        try storage.synchronize()
      }
    }
    header = replacement
    sector = steps.last?.bytes ?? sector
  }

  /// A larger disk, whose L1 table is there, durably.
  func switchL1(offset: UInt64, count: UInt32, size: UInt64) throws(DiskError) {
    sector.put(size, at: 24)
    sector.put(count, at: 36)
    sector.put(offset, at: 40)
    try storeSector()
    (header.l1Offset, header.l1Count, header.size) = (offset, count, size)
  }

  /// Another refcount table is there, durably.
  func switchRefcountTable(offset: UInt64, clusters: UInt32) throws(DiskError) {
    sector.put(offset, at: 48)
    sector.put(clusters, at: 56)
    try storeSector()
    (header.refcountTableOffset, header.refcountTableClusters) = (offset, clusters)
  }
}
