import LinuxSystem

/// A stretch of a disk that is kept in one way.
struct Extent: Equatable {
  /// At its beginning; data goes on from there without a gap.
  let mapping: ClusterMapping
  /// In bytes, from the offset that was asked about.
  let count: Int
}

extension ClusterMapping {
  /// What is so many bytes into the cluster.
  func advanced(by bytes: UInt64) -> ClusterMapping {
    guard case .data(let host, let isOwn) = self else { return self }
    return .data(host: host + bytes, isOwn: isOwn)
  }
}

extension Qcow2Metadata {
  func l1Index(_ cluster: UInt64) -> Int { Int(cluster >> UInt64(geometry.l2Bits)) }
  func l2Index(_ cluster: UInt64) -> Int { Int(cluster & UInt64(geometry.l2Entries - 1)) }

  /// What is at `offset`, at most `count` bytes of it. The range is within the disk.
  func extent(at offset: UInt64, count: Int) throws(DiskError) -> Extent {
    let first = cluster(at: offset)
    let skipped = Int(offset & geometry.clusterMask)
    var index = l2Index(first)
    guard let table = try l2Table(l1Index(first)) else {
      let rest = (geometry.l2Entries - index) << geometry.clusterBits - skipped
      return Extent(mapping: .unallocated, count: min(count, rest))
    }
    let entry = table[index]
    let mapping = try self.mapping(entry)
    var length = geometry.clusterSize - skipped
    var clusters: UInt64 = 1
    index += 1
    while length < count, index < geometry.l2Entries,
      continues(mapping, entry, clusters, table[index])
    {
      length += geometry.clusterSize
      (index, clusters) = (index + 1, clusters + 1)
    }
    return Extent(mapping: mapping.advanced(by: UInt64(skipped)), count: min(count, length))
  }

  /// Whether `entry`, that of the cluster which is `clusters` behind the one whose entry is
  /// `first`, belongs to the same extent.
  func continues(
    _ mapping: ClusterMapping, _ first: UInt64, _ clusters: UInt64, _ entry: UInt64
  ) -> Bool {
    switch mapping {
    case .unallocated: return entry == 0
    case .data(let host, _):
      let next = cluster(at: host) + clusters
      return entry == first + offset(of: clusters) && next < endCluster && kinds[next] == nil
    case .zero:
      guard case .zero? = try? self.mapping(entry) else { return false }
      return true
    case .compressed: return false
    }
  }

  /// What an L2 entry says, which is something that can be.
  func mapping(_ entry: UInt64) throws(DiskError) -> ClusterMapping {
    let mapping: ClusterMapping
    do {
      mapping = try ClusterMapping(entry, geometry)
    } catch {
      throw DiskError(path, error)
    }
    switch mapping {
    case .unallocated, .zero(nil, _): break
    case .data(let host, _), .zero(.some(let host), _): try checkData(host, count: 1)
    case .compressed(let host, let count): try checkData(host, count: count)
    }
    return mapping
  }

  /// Guest data is within the image, and nowhere where metadata is.
  private func checkData(_ host: UInt64, count: Int) throws(DiskError) {
    var cluster = cluster(at: host)
    let last = self.cluster(at: host + UInt64(count) - 1)
    guard last < endCluster else {
      throw corrupt("data is mapped to \(host), beyond its end")
    }
    while cluster <= last {
      guard kinds[cluster] == nil else { throw corrupt("data is mapped to metadata at \(host)") }
      cluster += 1
    }
  }

  /// The table that `l1` leads to; `nil` where it does not.
  func l2Table(_ index: Int) throws(DiskError) -> MetadataTable? {
    guard index < l1.count else { throw corrupt("its L1 table is too small") }
    let entry = l1[index]
    let offset = entry & L1Entry.offsetMask
    guard entry & L1Entry.reserved == 0, offset & geometry.clusterMask == 0 else {
      throw corrupt("an L2 table is at 0x\(String(entry, radix: 16))")
    }
    guard offset != 0 else { return nil }
    if let table = l2Tables.find(offset) { return table }
    guard kinds[cluster(at: offset)] == .l2 else {
      throw corrupt("an L2 table is at \(offset), which is something else or beyond its end")
    }
    return try load(offset, into: l2Tables)
  }

  func load(_ offset: UInt64, into cache: TableCache) throws(DiskError) -> MetadataTable {
    let table = MetadataTable(offset: offset, size: geometry.clusterSize, isReachable: true)
    try reading("read a table at \(offset)") { () throws(SystemError) in
      try table.load(from: storage)
    }
    cache.insert(table)
    return table
  }

  /// Whether an unallocated cluster reads as the backing file has it.
  func isBacked(_ cluster: UInt64) -> Bool { offset(of: cluster) < backingByteCount }
}
