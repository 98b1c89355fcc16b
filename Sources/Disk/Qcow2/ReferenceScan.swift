import LinuxSystem

/// Goes through everything that an image's header leads to and counts references. The image
/// does not change meanwhile, and all of it is stored.
struct ReferenceScan {
  private let metadata: Qcow2Metadata
  private let progress: (Double) -> Void
  private(set) var counts = ReferenceCounts()
  private(set) var errors = 0
  /// The first of them.
  private(set) var problems: [String] = []
  /// Guest clusters that have data of their own in the present disk.
  private(set) var allocatedClusters: UInt64 = 0
  static let mostProblems = 100

  init(_ metadata: Qcow2Metadata, progress: @escaping (Double) -> Void) {
    self.metadata = metadata
    self.progress = progress
  }

  mutating func run() throws(DiskError) {
    try add(0)
    try addArea(metadata.header.refcountTableOffset, UInt64(metadata.refcountTable.count) * 8)
    for block in metadata.refcountTable where block != 0 { try add(metadata.cluster(at: block)) }
    try addBitmaps()
    var tables: [UInt64: UInt32] = [:]
    try addL1(metadata.l1, at: metadata.header.l1Offset, to: &tables, isActive: true)
    try addSnapshots(&tables)
    let total = Double(max(1, tables.count))
    for (number, (table, times)) in tables.sorted(by: { $0.key < $1.key }).enumerated() {
      try addTable(table, times)
      progress(Double(number + 1) / total)
    }
  }

  mutating func fail(_ problem: String) {
    errors += 1
    if problems.count < Self.mostProblems { problems.append(problem) }
  }

  private mutating func add(_ cluster: UInt64, times: UInt32 = 1) throws(DiskError) {
    guard counts.add(cluster, times: times) else {
      throw DiskError(
        kind: .unsupported,
        context: "image \(metadata.path) is too large, or too scattered, to be checked here;"
          + " use qemu-img check")
    }
  }

  private mutating func addArea(_ offset: UInt64, _ bytes: UInt64) throws(DiskError) {
    guard bytes > 0 else { return }
    for cluster in metadata.cluster(at: offset)...metadata.cluster(at: offset + bytes - 1) {
      try add(cluster)
    }
  }

  /// - Parameter tables: gets the L2 tables and how often they are referred to.
  private mutating func addL1(
    _ entries: [UInt64], at offset: UInt64, to tables: inout [UInt64: UInt32], isActive: Bool
  ) throws(DiskError) {
    try addArea(offset, UInt64(entries.count) * 8)
    var seen: Set<UInt64> = []
    for (index, entry) in entries.enumerated() where entry != 0 {
      let table = entry & L1Entry.offsetMask
      let cluster = metadata.cluster(at: table)
      let kind = metadata.kinds[cluster]
      guard entry & L1Entry.reserved == 0, table & metadata.geometry.clusterMask == 0,
        cluster < metadata.endCluster, kind == .l2 || (kind == nil && !isActive)
      else {
        fail("L1 entry \(index) is 0x\(String(entry, radix: 16))")
        continue
      }
      guard seen.insert(table).inserted else {
        fail("two L1 entries lead to the L2 table at \(table)")
        continue
      }
      tables[table, default: 0] += 1
      try add(cluster)
    }
  }

  private mutating func addSnapshots(_ tables: inout [UInt64: UInt32]) throws(DiskError) {
    let header = metadata.header
    guard header.snapshotCount > 0 else { return }
    let found: (snapshots: [InternalSnapshot], length: Int)
    do {
      found = try InternalSnapshot.table(of: header, metadata.storage, metadata.path)
    } catch  where error.kind == .corrupt {
      return fail(error.context)
    }
    try addArea(header.snapshotsOffset, UInt64(found.length))
    for snapshot in found.snapshots {
      let bytes = UInt64(snapshot.l1Count) * 8
      let layout = ImageLayout(geometry: metadata.geometry, endCluster: metadata.endCluster)
      guard (try? layout.clusters(of: "L1 table", snapshot.l1Offset, bytes)) != nil else {
        fail("the L1 table of snapshot \(snapshot.identifier) is beyond the image's end")
        continue
      }
      let entries = try read(snapshot.l1Offset, Int(bytes))
      try addL1(entries, at: snapshot.l1Offset, to: &tables, isActive: false)
    }
  }

  private func read(_ offset: UInt64, _ count: Int) throws(DiskError) -> [UInt64] {
    try metadata.reading("read a table at \(offset)") { () throws(SystemError) in
      try metadata.storage.read(count, at: offset).tableEntries
    }
  }

  private mutating func addTable(_ table: UInt64, _ times: UInt32) throws(DiskError) {
    for (index, entry) in try read(table, metadata.geometry.clusterSize).enumerated()
    where entry != 0 {
      do throws(DiskError) {
        let mapping = try metadata.mapping(entry)
        for cluster in metadata.hostClusters(mapping) { try add(cluster, times: times) }
        if mapping != .zero(host: nil, isOwn: false) { allocatedClusters += 1 }
      } catch  where error.kind == .corrupt {
        fail("entry \(index) of the L2 table at \(table) is 0x\(String(entry, radix: 16))")
      }
    }
  }
}

/// Bitmaps (docs/interop/qcow2, Bitmaps) keep their clusters.
extension ReferenceScan {
  private enum Bitmap {
    static let fixedSize = 24
    static let mostDirectoryBytes: UInt64 = 64 << 20
    static let mostTableEntries: UInt32 = 4 << 20
    static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
  }

  /// Those that were marked as inconsistent may be anything.
  private mutating func addBitmaps() throws(DiskError) {
    guard let bitmaps = metadata.header.bitmaps else { return }
    let isConsistent = metadata.header.autoclear & Qcow2Header.Autoclear.bitmaps != 0
    let layout = ImageLayout(geometry: metadata.geometry, endCluster: metadata.endCluster)
    let (offset, size) = (bitmaps.directoryOffset, bitmaps.directorySize)
    guard size > 0, size <= Bitmap.mostDirectoryBytes,
      (try? layout.clusters(of: "bitmap directory", offset, size)) != nil
    else {
      if isConsistent { fail("the bitmap directory is beyond the image's end") }
      return
    }
    try addArea(offset, size)
    let directory = try metadata.reading("read the bitmaps") { () throws(SystemError) in
      try metadata.storage.read(Int(size), at: offset)
    }
    var place = 0
    for _ in 0..<bitmaps.count {
      guard let (table, entries, next) = Self.bitmap(directory, at: place), next > place,
        (try? layout.clusters(of: "bitmap", table, UInt64(entries) * 8)) != nil
      else {
        if isConsistent { fail("the bitmap directory contradicts itself") }
        return
      }
      try addArea(table, UInt64(entries) * 8)
      try addBitmap(try read(table, Int(entries) * 8), isConsistent)
      place = next
    }
  }

  private static func bitmap(
    _ directory: [UInt8], at place: Int
  ) -> (table: UInt64, entries: UInt32, next: Int)? {
    guard place + Bitmap.fixedSize <= directory.count else { return nil }
    let entries: UInt32 = directory.number(at: place + 8)
    let name = Int(directory.number(UInt16.self, at: place + 18))
    let extra = Int(directory.number(UInt32.self, at: place + 20))
    let end = place + Bitmap.fixedSize + extra + name
    guard entries <= Bitmap.mostTableEntries, end <= directory.count else { return nil }
    return (directory.number(at: place), entries, end + end.padding(to: 8))
  }

  private mutating func addBitmap(_ entries: [UInt64], _ isConsistent: Bool) throws(DiskError) {
    for entry in entries where entry & Bitmap.offsetMask != 0 {
      let offset = entry & Bitmap.offsetMask
      guard offset & metadata.geometry.clusterMask == 0,
        metadata.cluster(at: offset) < metadata.endCluster
      else {
        if isConsistent { fail("a bitmap's data is at \(offset)") }
        continue
      }
      try add(metadata.cluster(at: offset))
    }
  }
}
