import LinuxSystem

/// Compressed clusters are written once, by copying; a guest's writes put data in their place.
extension Qcow2Image {
  /// Compresses a whole cluster (the disk's last one may be shorter), which must be
  /// unallocated. Where that saves nothing it is written as it is.
  package func writeCompressed(_ data: UnsafeRawBufferPointer, offset: UInt64) throws(DiskError) {
    try checkWrite(offset, UInt64(data.count))
    let isWhole = data.count == geometry.clusterSize || offset + UInt64(data.count) == byteCount
    guard offset & geometry.clusterMask == 0, isWhole, data.count <= geometry.clusterSize else {
      throw DiskError(
        kind: .outOfRange, context: "image \(path): only whole clusters are compressed")
    }
    let cluster = Scratch(geometry.clusterSize)
    cluster.bytes.copyMemory(from: data)
    guard
      let bytes = ClusterCompression.compress(UnsafeRawBufferPointer(cluster.bytes), compression),
      let host = try allocateCompressed(bytes.count)
    else { return try write(from: [data], offset: offset) }
    do {
      try storage.write(bytes, at: host)
    } catch {
      guarded.withLock { $0.pendingFrees.append($0.cluster(at: host)) }
      throw DiskError(image: path, "write", error)
    }
    try map(offset, to: .compressed(host: host, count: bytes.count))
  }

  /// - Returns: `nil` when there is no room that compressed clusters can be in.
  private func allocateCompressed(_ count: Int) throws(DiskError) -> UInt64? {
    try growing { metadata throws(DiskError) in try metadata.allocateCompressed(count) }
  }

  private func map(_ offset: UInt64, to mapping: ClusterMapping) throws(DiskError) {
    try growing { metadata throws(DiskError) -> Void?? in
      let cluster = metadata.cluster(at: offset)
      guard let table = try metadata.ownL2Table(metadata.l1Index(cluster)) else { return nil }
      try metadata.setMapping(mapping, metadata.l2Index(cluster), of: table)
      return .some(())
    }
  }

  /// Has `body` done again with a larger refcount table when it returns `nil` for the want of
  /// one.
  private func growing<Result>(
    _ body: (Qcow2Metadata) throws(DiskError) -> Result??
  ) throws(DiskError) -> Result? {
    while true {
      let result = try guarded.changing { metadata throws(DiskError) in try body(metadata) }
      if let result { return result }
      try guarded.growRefcountTable()
    }
  }
}

extension Qcow2Metadata {
  /// Room for compressed bytes within one host cluster, which others may share: each counts
  /// as a reference.
  ///
  /// - Returns: `nil` when the refcount table has to grow first; within, `nil` when there is
  ///   no room that an entry could say.
  func allocateCompressed(_ count: Int) throws(DiskError) -> UInt64?? {
    let limit = ClusterMapping.compressedLimit(geometry)
    if compressedCursor != 0, compressedCursor & geometry.clusterMask != 0 {
      let cluster = cluster(at: compressedCursor)
      let room = geometry.clusterSize - Int(compressedCursor & geometry.clusterMask)
      if room >= count, try addReference(to: cluster) {
        defer { compressedCursor += UInt64(count) }
        return .some(compressedCursor)
      }
    }
    guard let run = try allocate(upTo: 1, .data) else { return nil }
    let host = offset(of: run.first)
    guard host + clusterSize <= limit else {
      pendingFrees.append(run.first)
      return .some(nil)
    }
    compressedCursor = host + UInt64(count)
    return .some(host)
  }

  private func addReference(to cluster: UInt64) throws(DiskError) -> Bool {
    let count = try refcount(cluster)
    guard count > 0, count < geometry.maximumRefcount,
      let block = try refcountBlock(Int(cluster >> UInt64(geometry.refcountBlockBits)))
    else { return false }
    block.setRefcount(blockIndex(cluster), order: geometry.refcountOrder, to: count + 1)
    return true
  }
}
