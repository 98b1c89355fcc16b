import LinuxSystem

/// The tables of an open qcow2 image: what is mapped where, what is free, and what of that
/// has to be stored in which order.
///
/// Belongs to the lock of its `Qcow2Image`, which moves the data.
final class Qcow2Metadata {
  /// What a host cluster holds that is no guest's data.
  enum Kind {
    case header, l1, refcountTable, refcountBlock, l2, snapshots
  }

  /// For L2 tables; a quarter of that is for refcount blocks. 32 MiB map 256 GiB of a disk
  /// with clusters of 64 KiB.
  static let cacheBytes = 32 << 20
  /// As many clusters may wait to be let go of.
  static let mostPendingFrees = 1 << 16

  let path: String
  let storage: any ImageStorage
  let geometry: Qcow2Geometry
  let isReadOnly: Bool
  var header: Qcow2Header
  /// The header's first 512 bytes as they are stored.
  var sector: [UInt8]

  var l1: [UInt64]
  var refcountTable: [UInt64]
  let l2Tables: TableCache
  let refcountBlocks: TableCache
  /// By the sector of 64 entries.
  var dirtyL1: Set<Int> = []
  var dirtyRefcountTable: Set<Int> = []

  /// The clusters of metadata; those of inactive snapshots are not among them.
  var kinds: [UInt64: Kind] = [:]
  /// Host clusters from here on are not in the image yet.
  var endCluster: UInt64 = 0
  /// Those from here on were never written, and read as zeros.
  var virginCluster: UInt64 = .max
  /// All before are in use.
  var freeHint: UInt64 = 0
  /// All from `dataStart` up to here are in use.
  var dataHint: UInt64 = 0
  /// Guest data gets clusters from here on.
  let dataStart: UInt64
  /// Up to where the backing file has data.
  var backingByteCount: UInt64 = 0
  /// Where the next compressed cluster may begin in a cluster that others share; 0 is none.
  var compressedCursor: UInt64 = 0

  /// Clusters that nothing will refer to once what is dirty has been stored.
  var pendingFrees: [UInt64] = []
  /// Those that nothing stored refers to, but operations that are under way.
  var durableFrees: [(epoch: UInt64, clusters: [UInt64])] = []
  /// Changes when clusters become free.
  var freeGeneration: UInt64 = 0
  var epochs = OperationEpochs()
  /// Whether the storage of what is free is let go of.
  var discardsStorage = true
  /// Whether the image may be written at once: autoclear bits and dirty bit are as they
  /// must be.
  var isPrepared = false
  /// A commit failed, so that what is stored is not known exactly.
  var isCautious = false

  /// - Parameter snapshot: whose contents it has, instead of the present ones.
  init(
    path: String, storage: any ImageStorage, header: Qcow2Header, sector: [UInt8],
    isReadOnly: Bool, snapshot: InternalSnapshot?, cacheBytes: Int
  ) throws(DiskError) {
    self.path = path
    self.storage = storage
    self.header = header
    self.sector = sector
    self.isReadOnly = isReadOnly || snapshot != nil
    geometry = Qcow2Geometry(header)
    l2Tables = TableCache(tableSize: geometry.clusterSize, bytes: cacheBytes)
    refcountBlocks = TableCache(tableSize: geometry.clusterSize, bytes: cacheBytes / 4)
    dataStart = storage.growsWithZeros ? Self.dataStart(geometry, size: header.size) : 0
    (l1, refcountTable) = ([], [])
    let size = try reading("find the size") { () throws(SystemError) in try storage.size() }
    endCluster = geometry.clusters(for: size)
    if storage.growsWithZeros { virginCluster = endCluster }
    let layout = ImageLayout(geometry: geometry, endCluster: endCluster)
    kinds = try explaining(path) { () throws(FormatProblem) in try layout.kinds(of: header) }
    try load(snapshot, layout)
  }

  private func load(_ snapshot: InternalSnapshot?, _ layout: ImageLayout) throws(DiskError) {
    let (l1Offset, l1Count) =
      snapshot.map { ($0.l1Offset, $0.l1Count) } ?? (header.l1Offset, header.l1Count)
    let size = snapshot?.byteCount ?? header.size
    try explaining(path) { () throws(FormatProblem) in
      try layout.checkL1(offset: l1Offset, count: l1Count, size: size)
    }
    header.size = size
    l1 = try readTable(l1Offset, count: Int(l1Count))
    refcountTable = try readTable(
      header.refcountTableOffset,
      count: Int(header.refcountTableClusters) << geometry.l2Bits)
    let (l1, refcountTable) = (l1, refcountTable)
    try explaining(path) { () throws(FormatProblem) in
      try layout.addBlocks(refcountTable, to: &kinds)
      layout.addTables(l1, to: &kinds)
    }
  }

  private func readTable(_ offset: UInt64, count: Int) throws(DiskError) -> [UInt64] {
    try reading("read a table") { () throws(SystemError) in
      try storage.read(count * 8, at: offset).tableEntries
    }
  }

  func reading<Result>(
    _ what: String, _ body: () throws(SystemError) -> Result
  ) throws(DiskError) -> Result {
    do {
      return try body()
    } catch {
      throw DiskError(image: path, what, error)
    }
  }

  func corrupt(_ text: String) -> DiskError { DiskError(path, .corrupt(text)) }

  var clusterSize: UInt64 { UInt64(geometry.clusterSize) }
  func offset(of cluster: UInt64) -> UInt64 { cluster << UInt64(geometry.clusterBits) }
  func cluster(at offset: UInt64) -> UInt64 { offset >> UInt64(geometry.clusterBits) }
}

/// Whether what a header says can be so, given its geometry and the file's size.
struct ImageLayout {
  let geometry: Qcow2Geometry
  let endCluster: UInt64

  /// The clusters of header, tables and snapshots, which do not overlap.
  func kinds(of header: Qcow2Header) throws(FormatProblem) -> [UInt64: Qcow2Metadata.Kind] {
    var kinds: [UInt64: Qcow2Metadata.Kind] = [0: .header]
    try checkL1(offset: header.l1Offset, count: header.l1Count, size: header.size)
    let tableBytes = UInt64(header.refcountTableClusters) << UInt64(geometry.clusterBits)
    guard tableBytes > 0, tableBytes <= Qcow2Header.Limit.refcountTableBytes else {
      throw .corrupt("a refcount table of \(header.refcountTableClusters) clusters")
    }
    guard header.snapshotCount <= Qcow2Header.Limit.snapshots else {
      throw .corrupt("\(header.snapshotCount) snapshots, where 65536 are the most")
    }
    var areas: [(String, UInt64, UInt64, Qcow2Metadata.Kind)] = [
      ("refcount table", header.refcountTableOffset, tableBytes, .refcountTable)
    ]
    if header.l1Count > 0 {
      areas.append(("L1 table", header.l1Offset, UInt64(header.l1Count) * 8, .l1))
    }
    if header.snapshotCount > 0 {
      areas.append(("table of snapshots", header.snapshotsOffset, 1, .snapshots))
    }
    for (name, offset, bytes, kind) in areas {
      for cluster in try clusters(of: name, offset, bytes) {
        guard kinds.updateValue(kind, forKey: cluster) == nil else {
          throw .corrupt("its \(name) overlaps with other tables")
        }
      }
    }
    return kinds
  }

  /// The clusters of an area that must be aligned and within the file.
  func clusters(
    of name: String, _ offset: UInt64, _ bytes: UInt64
  ) throws(FormatProblem) -> Range<UInt64> {
    let (end, overflows) = offset.addingReportingOverflow(bytes)
    guard offset & geometry.clusterMask == 0, !overflows, geometry.clusters(for: end) <= endCluster
    else { throw .corrupt("its \(name) is at \(offset), which is unaligned or beyond its end") }
    return offset >> UInt64(geometry.clusterBits)..<geometry.clusters(for: end)
  }

  func checkL1(offset: UInt64, count: UInt32, size: UInt64) throws(FormatProblem) {
    guard UInt64(count) * 8 <= Qcow2Header.Limit.l1Bytes else {
      throw .corrupt("an L1 table of \(count) entries, where 4194304 are the most")
    }
    guard geometry.l1Count(for: size) <= UInt64(count) else {
      throw .corrupt("its L1 table is too small for \(size) bytes")
    }
    _ = try clusters(of: "L1 table", offset, UInt64(count) * 8)
  }

  func addBlocks(
    _ table: [UInt64], to kinds: inout [UInt64: Qcow2Metadata.Kind]
  ) throws(FormatProblem) {
    for entry in table where entry != 0 {
      let cluster = entry >> UInt64(geometry.clusterBits)
      guard entry & geometry.clusterMask == 0, cluster < endCluster,
        kinds.updateValue(.refcountBlock, forKey: cluster) == nil
      else { throw .corrupt("its refcount table leads to 0x\(String(entry, radix: 16))") }
    }
  }

  /// Entries that lead nowhere are found when they are used.
  func addTables(_ l1: [UInt64], to kinds: inout [UInt64: Qcow2Metadata.Kind]) {
    for entry in l1 {
      let cluster = (entry & L1Entry.offsetMask) >> UInt64(geometry.clusterBits)
      if cluster != 0, cluster < endCluster, kinds[cluster] == nil { kinds[cluster] = .l2 }
    }
  }
}
