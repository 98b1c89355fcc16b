import LinuxSystem

extension Qcow2Image {
  /// Makes the disk larger; the image is opened again to use it. What is new reads as zeros,
  /// also where the backing file has something there, and wherever power goes. No requests
  /// are made meanwhile.
  public func growDisk(to size: UInt64) throws(DiskError) {
    try checkWrite(0, 0)
    guard size % 512 == 0, size >= byteCount else {
      throw DiskError(
        kind: .oddSize,
        context: "image \(path) cannot have \(size) bytes: that is less than its \(byteCount),"
          + " or no number of sectors")
    }
    let count = geometry.l1Count(for: size)
    guard count * 8 <= Qcow2Header.Limit.l1Bytes else {
      throw DiskError(
        kind: .unsupported, context: "image \(path) cannot have \(size) bytes with its clusters")
    }
    try guarded.commit(counts: true)
    let run = try guarded.changing { metadata throws(DiskError) in
      try metadata.allocateL1(count: Int(count))
    }
    // Its reference counts are stored before the header leads to it.
    try guarded.commit(counts: true)
    if let run {
      try guarded.withLock { metadata throws(DiskError) in
        try metadata.replaceL1(count: Int(count), at: run)
      }
    }
    // What is beyond the end may be anything, and shows at once when that is elsewhere.
    try clearTail()
    try clearClusters(beyondEndTo: size)
    try guarded.commit(counts: true)
    try guarded.withLock { metadata throws(DiskError) in
      try metadata.switchL1(
        offset: metadata.header.l1Offset, count: metadata.header.l1Count, size: size)
    }
    try guarded.commit(counts: true)
  }

  /// Has what is behind the disk's end in its last cluster be zeros.
  private func clearTail() throws(DiskError) {
    let tail = Int(byteCount & geometry.clusterMask)
    guard tail > 0 else { return }
    let start = byteCount - UInt64(tail)
    let mapping = try guarded.withLock { metadata throws(DiskError) in
      try metadata.extent(at: start, count: tail).mapping
    }
    switch mapping {
    case .zero: return
    case .unallocated where byteCount >= (backing?.byteCount ?? 0): return
    case .data(let host, true):
      let zeros = [UInt8](repeating: 0, count: geometry.clusterSize - tail)
      do {
        try storage.write(zeros, at: host + UInt64(tail))
      } catch {
        throw DiskError(image: path, "write", error)
      }
    default:
      // A cluster of its own, which is filled up with zeros.
      let last = byteCount - UInt64(min(tail, 512))
      try write(try read(Int(byteCount - last), at: last), at: last)
    }
  }

  /// Has the clusters from the end up to a later one read as zeros, and lets go of what they
  /// have.
  private func clearClusters(beyondEndTo size: UInt64) throws(DiskError) {
    var cluster = geometry.clusters(for: byteCount)
    let end = geometry.clusters(for: size)
    while cluster < end {
      switch try guarded.clear(cluster, count: Int(clamping: end - cluster), .zeroSparsely) {
      case .done(let count): cluster += UInt64(count)
      case .mustWrite:
        try writeZeros(cluster: cluster)
        cluster += 1
      case .busy, .needsGrowth: continue
      }
    }
  }

  /// Writes zeros to a cluster that may be beyond the end.
  private func writeZeros(cluster: UInt64) throws(DiskError) {
    let zeros = Scratch(geometry.clusterSize)
    let offset = cluster << UInt64(geometry.clusterBits)
    var done = 0
    while done < geometry.clusterSize {
      let rest = [UnsafeRawBufferPointer(zeros.bytes)].part(done, geometry.clusterSize - done)
      done += try writeBeginning(of: rest, offset: offset + UInt64(done))
    }
  }
}

extension Qcow2Metadata {
  /// Room for a larger L1 table; `nil` when the present one is large enough.
  func allocateL1(count: Int) throws(DiskError) -> HostRun? {
    guard count > l1.count else { return nil }
    let wanted = Int(geometry.clusters(for: UInt64(count) * 8))
    // A run ends with its refcount block.
    for _ in 0..<64 {
      guard wanted <= geometry.refcountBlockEntries / 2, let run = try allocate(upTo: wanted)
      else { break }
      if run.count == wanted { return run }
      pendingFrees += run.first..<run.first + UInt64(run.count)
    }
    throw DiskError(
      kind: .unsupported,
      context: "image \(path) has no room for a larger L1 table; convert it with qemu-img"
        + " convert, and resize the copy")
  }

  /// Gives the disk a larger L1 table. Everything is stored, but for what is done here.
  func replaceL1(count: Int, at run: HostRun) throws(DiskError) {
    let larger = l1 + [UInt64](repeating: 0, count: count - l1.count)
    let (place, bytes) = (offset(of: run.first), larger.tableBytes)
    try reading("write a larger L1 table") { () throws(SystemError) in
      try storage.write(
        bytes + [UInt8](repeating: 0, count: bytes.count.padding(to: geometry.clusterSize)),
        at: place)
      try storage.synchronize()
    }
    let former = header
    try switchL1(offset: place, count: UInt32(count), size: former.size)
    l1 = larger
    for number in 0..<UInt64(run.count) { kinds[run.first + number] = .l1 }
    if former.l1Count > 0 {
      let first = cluster(at: former.l1Offset)
      pendingFrees += first..<first + geometry.clusters(for: UInt64(former.l1Count) * 8)
    }
  }
}
