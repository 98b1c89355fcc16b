import LinuxSystem

/// What was found wrong with an image.
public struct ImageCheck: Equatable, Sendable {
  /// What endangers data.
  public internal(set) var errors = 0
  /// Clusters that nothing refers to and that are not free: lost room.
  public internal(set) var leaks = 0
  /// The first errors, in words.
  public internal(set) var problems: [String] = []
  /// Clusters that have data of their own, those of snapshots included.
  public internal(set) var allocatedClusters: UInt64 = 0

  public var isClean: Bool { errors == 0 && leaks == 0 }

  /// Of an image that has nothing wrong.
  public init() {}
}

extension Qcow2Image {
  /// Compares the reference counts with what refers to each cluster. No requests are made
  /// meanwhile.
  ///
  /// - Parameter progress: is told from 0 to 1 how much is done.
  public func check(progress: @escaping (Double) -> Void = { _ in }) throws(DiskError) -> ImageCheck
  {
    if !guarded.withLock({ $0.header.isCorrupt }) { try flush() }
    return try guarded.withLock { metadata throws(DiskError) in
      var scan = ReferenceScan(metadata, progress: progress)
      try scan.run()
      var check = ImageCheck()
      try compare(metadata, &scan, &check)
      try checkOwnership(metadata, &scan)
      check.errors = scan.errors
      check.problems = scan.problems
      check.allocatedClusters = scan.allocatedClusters
      return check
    }
  }

  /// Corrects reference counts, which frees what leaked. No requests are made meanwhile.
  ///
  /// - Throws: kind `corrupt` when more than those is wrong.
  public func repairCounts() throws(DiskError) {
    try checkWrite(0, 0)
    try flush()
    try guarded.withLock { metadata throws(DiskError) in
      try metadata.prepareToWrite()
      try ImageRepair.repairCounts(metadata)
    }
  }

  private func compare(
    _ metadata: Qcow2Metadata, _ scan: inout ReferenceScan, _ check: inout ImageCheck
  ) throws(DiskError) {
    let entries = metadata.geometry.refcountBlockEntries
    for (index, offset) in metadata.refcountTable.enumerated() where offset != 0 {
      guard let block = try metadata.refcountBlock(index) else { continue }
      for number in 0..<entries {
        let cluster = UInt64(index) << UInt64(metadata.geometry.refcountBlockBits) + UInt64(number)
        let stored = block.refcount(number, order: metadata.geometry.refcountOrder)
        let found = scan.counts[cluster]
        guard stored != found else { continue }
        if stored > found {
          check.leaks += 1
        } else {
          scan.fail("cluster \(cluster) has \(found) references and counts \(stored)")
        }
      }
    }
    let counts = scan.counts
    var uncounted: [UInt64] = []
    try counts.forEach { cluster, _ throws(DiskError) in
      let index = cluster >> UInt64(metadata.geometry.refcountBlockBits)
      let isCounted =
        index < UInt64(metadata.refcountTable.count) && metadata.refcountTable[Int(index)] != 0
      if !isCounted { uncounted.append(cluster) }
    }
    for cluster in uncounted { scan.fail("cluster \(cluster) is in use and not counted") }
  }

  /// "1 for standard clusters whose refcount is exactly one."
  private func checkOwnership(
    _ metadata: Qcow2Metadata, _ scan: inout ReferenceScan
  ) throws(DiskError) {
    for (index, entry) in metadata.l1.enumerated() where entry & L1Entry.offsetMask != 0 {
      let count = scan.counts[metadata.cluster(at: entry & L1Entry.offsetMask)]
      if (entry & L1Entry.isOwn != 0) != (count == 1) {
        scan.fail("L1 entry \(index) says the wrong thing about who owns its table")
      }
      guard let table = try? metadata.l2Table(index) else { continue }
      for number in 0..<metadata.geometry.l2Entries where table[number] != 0 {
        guard let mapping = try? metadata.mapping(table[number]), let isOwn = mapping.ownership,
          let cluster = metadata.hostClusters(mapping).first,
          isOwn != (scan.counts[cluster] == 1)
        else { continue }
        scan.fail("entry \(number) of the L2 table at \(table.offset) is wrong about its owner")
      }
    }
  }
}

extension ClusterMapping {
  /// Of standard clusters that have a host cluster.
  var ownership: Bool? {
    switch self {
    case .data(_, let isOwn), .zero(.some, let isOwn): isOwn
    default: nil
    }
  }

  func owned(_ isOwn: Bool) -> ClusterMapping {
    switch self {
    case .data(let host, _): .data(host: host, isOwn: isOwn)
    case .zero(let host, _): .zero(host: host, isOwn: isOwn)
    default: self
    }
  }
}

/// Makes reference counts what they should be: "If this bit is set then refcounts may be
/// inconsistent, make sure to scan L1/L2 tables to repair refcounts before accessing the
/// image" (docs/interop/qcow2, dirty bit).
enum ImageRepair {
  /// Nobody else uses the metadata. It is stored, and not marked as dirty any more, when this
  /// returns.
  static func repairCounts(_ metadata: Qcow2Metadata) throws(DiskError) {
    var scan = ReferenceScan(metadata) { _ in }
    try scan.run()
    guard scan.errors == 0 else {
      throw metadata.corrupt(scan.problems.first ?? "its tables contradict each other")
    }
    metadata.isPrepared = true
    try correctBlocks(metadata, scan.counts)
    metadata.freeHint = max(metadata.endCluster, scan.counts.end)
    try correctUncounted(metadata, scan.counts)
    try correctOwnership(metadata, scan.counts)
    try store(metadata)
    metadata.freeHint = 0
    try metadata.markClean()
  }

  private static func store(_ metadata: Qcow2Metadata) throws(DiskError) {
    let commit = metadata.takeCommit(counts: true)
    try metadata.reading("write") { () throws(SystemError) in
      try commit.write(to: metadata.storage)
    }
    try metadata.finish(commit)
  }

  private static func correctBlocks(
    _ metadata: Qcow2Metadata, _ counts: ReferenceCounts
  ) throws(DiskError) {
    let geometry = metadata.geometry
    for index in metadata.refcountTable.indices {
      guard let block = try metadata.refcountBlock(index) else { continue }
      let first = UInt64(index) << UInt64(geometry.refcountBlockBits)
      for number in 0..<geometry.refcountBlockEntries {
        try set(block, number, to: counts[first + UInt64(number)], metadata)
      }
      if metadata.wantsCommit { try store(metadata) }
    }
  }

  private static func set(
    _ block: MetadataTable, _ index: Int, to count: UInt64, _ metadata: Qcow2Metadata
  ) throws(DiskError) {
    let order = metadata.geometry.refcountOrder
    guard block.refcount(index, order: order) != count else { return }
    guard count <= metadata.geometry.maximumRefcount else {
      throw metadata.corrupt("a cluster has \(count) references, more than can be counted")
    }
    block.setRefcount(index, order: order, to: count)
  }

  /// Blocks that were not stored when the machine went down are made anew, behind all else.
  private static func correctUncounted(
    _ metadata: Qcow2Metadata, _ counts: ReferenceCounts
  ) throws(DiskError) {
    let geometry = metadata.geometry
    try counts.forEach { cluster, count throws(DiskError) in
      let index = Int(cluster >> UInt64(geometry.refcountBlockBits))
      while index >= metadata.refcountTable.count { try grow(metadata) }
      if metadata.refcountTable[index] == 0 {
        var run = try metadata.allocate(upTo: 1)
        while run == nil {
          try grow(metadata)
          run = try metadata.allocate(upTo: 1)
        }
        if let run, metadata.refcountTable[index] == 0 {
          _ = metadata.addBlock(index, at: run.first)
          metadata.dirtyRefcountTable.insert(index / 64)
        } else if let run {
          // The block that it took to allocate one is the one that was missing.
          metadata.pendingFrees.append(run.first)
        }
      }
      if let block = try metadata.refcountBlock(index) {
        try set(block, metadata.blockIndex(cluster), to: count, metadata)
      }
    }
  }

  private static func grow(_ metadata: Qcow2Metadata) throws(DiskError) {
    try store(metadata)
    try metadata.growRefcountTable()
  }

  private static func correctOwnership(
    _ metadata: Qcow2Metadata, _ counts: ReferenceCounts
  ) throws(DiskError) {
    for index in metadata.l1.indices {
      guard let table = try metadata.l2Table(index) else { continue }
      let isOwn = counts[metadata.cluster(at: table.offset)] == 1
      if isOwn != (metadata.l1[index] & L1Entry.isOwn != 0) {
        metadata.l1[index] ^= L1Entry.isOwn
        metadata.dirtyL1.insert(index / 64)
      }
      for number in 0..<metadata.geometry.l2Entries where table[number] != 0 {
        let mapping = try metadata.mapping(table[number])
        guard let ownership = mapping.ownership,
          let cluster = metadata.hostClusters(mapping).first,
          ownership != (counts[cluster] == 1)
        else { continue }
        table[number] = mapping.owned(!ownership).entry(metadata.geometry)
      }
      if metadata.wantsCommit { try store(metadata) }
    }
  }
}
