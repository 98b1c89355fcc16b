/// The bytes of a new, empty image.
struct ImageBlueprint {
  private let options: Qcow2Options
  private let path: String
  private let geometry: Qcow2Geometry
  private var tableClusters = 1
  private var blocks = 1
  private let l1Clusters: Int

  init(_ options: Qcow2Options, path: String) throws(DiskError) {
    self.options = options
    self.path = path
    func refuse(_ problem: String) -> DiskError {
      DiskError(kind: .unsupported, context: "image \(path) cannot be made: \(problem)")
    }
    let order = options.refcountBits.trailingZeroBitCount
    guard options.clusterSize.nonzeroBitCount == 1, (512...2 << 20).contains(options.clusterSize)
    else { throw refuse("clusters have 512 bytes to 2 MiB, a power of two") }
    guard options.refcountBits.nonzeroBitCount == 1, order <= 6 else {
      throw refuse("reference counts have 1, 2, 4, 8, 16, 32 or 64 bits")
    }
    guard [2, 3].contains(options.version) else { throw refuse("there are versions 2 and 3") }
    guard
      options.version == 3
        || (order == 4 && !options.hasLazyRefcounts && options.compression == .zlib)
    else {
      throw refuse("version 2 has counts of 16 bits, at once, and zlib only; make version 3")
    }
    guard options.byteCount % 512 == 0 else { throw refuse("its size is no number of sectors") }
    geometry = Qcow2Geometry(
      clusterBits: options.clusterSize.trailingZeroBitCount, refcountOrder: order,
      isVersion3: options.version == 3)
    let l1Bytes = geometry.l1Count(for: options.byteCount).multipliedReportingOverflow(by: 8)
    guard !l1Bytes.overflow, l1Bytes.partialValue <= Qcow2Header.Limit.l1Bytes else {
      throw refuse("\(options.byteCount) bytes are too many for clusters of this size")
    }
    l1Clusters = max(1, Int(geometry.clusters(for: l1Bytes.partialValue)))
    while true {
      let needed = (clusters + geometry.refcountBlockEntries - 1) >> geometry.refcountBlockBits
      let table = (needed + geometry.l2Entries - 1) >> geometry.l2Bits
      if needed <= blocks, table <= tableClusters { break }
      (blocks, tableClusters) = (max(blocks, needed), max(tableClusters, table))
    }
  }

  /// Header, refcount table, blocks and L1 table, in this order.
  private var clusters: Int { 1 + tableClusters + blocks + l1Clusters }

  var byteCount: UInt64 { offset(of: clusters) }

  private func offset(of cluster: Int) -> UInt64 { UInt64(cluster) << UInt64(geometry.clusterBits) }

  var header: Qcow2Header {
    get throws(DiskError) {
      var header = Qcow2Header(version: options.version, clusterBits: UInt32(geometry.clusterBits))
      header.size = options.byteCount
      header.l1Count = UInt32(geometry.l1Count(for: options.byteCount))
      header.l1Offset = offset(of: 1 + tableClusters + blocks)
      header.refcountTableOffset = offset(of: 1)
      header.refcountTableClusters = UInt32(tableClusters)
      header.refcountOrder = UInt32(geometry.refcountOrder)
      if options.hasLazyRefcounts { header.compatible = Qcow2Header.Compatible.lazyRefcounts }
      if options.compression == .zstd {
        header.compression = .zstd
        header.incompatible = Qcow2Header.Incompatible.compressionType
      }
      if geometry.clusterSize >= 1024 {
        let names = FeatureName.encode(Array(Qcow2Header.Incompatible.names.prefix(4)))
        header.extensions = [
          HeaderExtension(kind: HeaderExtension.Kind.featureNames, data: names)
        ]
      }
      header.setBacking(options.backing?.name, format: options.backing?.format.rawValue)
      return header
    }
  }

  /// Everything that is not zeros.
  func writes() throws(DiskError) -> [(offset: UInt64, bytes: [UInt8])] {
    var header = try self.header
    if let name = options.backing?.name, !(1...1023).contains(name.utf8.count) {
      throw DiskError(
        kind: .backing, context: "image \(path) cannot be based on a path of no or 1024 bytes")
    }
    let steps = try explaining(path) { () throws(FormatProblem) in try header.replacing(nil) }
    var writes = steps.map { (UInt64($0.offset), $0.bytes) }
    let table = (0..<blocks).map { offset(of: 1 + tableClusters + $0) }
    writes.append((offset(of: 1), table.tableBytes))
    for block in 0..<blocks {
      let scratch = Scratch(geometry.clusterSize)
      let first = block << geometry.refcountBlockBits
      for cluster in first..<min(clusters, first + geometry.refcountBlockEntries) {
        RefcountCodec.set(scratch.bytes, cluster - first, order: geometry.refcountOrder, to: 1)
      }
      writes.append((table[block], Array(scratch.bytes)))
    }
    return writes
  }
}

extension Qcow2Header {
  init(version: UInt32, clusterBits: UInt32) {
    self.version = version
    self.clusterBits = clusterBits
    (size, l1Count, l1Offset) = (0, 0, 0)
    (refcountTableOffset, refcountTableClusters) = (0, 0)
    (snapshotCount, snapshotsOffset) = (0, 0)
    (incompatible, compatible, autoclear, refcountOrder) = (0, 0, 0, 4)
    (compression, additional, extensions) = (.zlib, [], [])
  }
}
