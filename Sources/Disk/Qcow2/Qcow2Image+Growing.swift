import LinuxSystem

extension Qcow2Image {
  /// Makes the disk larger; the image is opened again to use it. What is new reads as zeros,
  /// or as the backing file where that is larger. No requests are made meanwhile.
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
    try guarded.withLock { metadata throws(DiskError) in
      try metadata.growDisk(to: size, l1Count: Int(count), at: run)
    }
    try guarded.commit(counts: true)
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

  /// Everything is stored, but for what is done here.
  func growDisk(to size: UInt64, l1Count: Int, at run: HostRun?) throws(DiskError) {
    guard let run else {
      try switchL1(offset: header.l1Offset, count: header.l1Count, size: size)
      return
    }
    let larger = l1 + [UInt64](repeating: 0, count: l1Count - l1.count)
    let (place, bytes) = (offset(of: run.first), larger.tableBytes)
    try reading("write a larger L1 table") { () throws(SystemError) in
      try storage.write(
        bytes + [UInt8](repeating: 0, count: bytes.count.padding(to: geometry.clusterSize)),
        at: place)
      try storage.synchronize()
    }
    let former = header
    try switchL1(offset: place, count: UInt32(l1Count), size: size)
    l1 = larger
    for number in 0..<UInt64(run.count) { kinds[run.first + number] = .l1 }
    if former.l1Count > 0 {
      let first = cluster(at: former.l1Offset)
      pendingFrees += first..<first + geometry.clusters(for: UInt64(former.l1Count) * 8)
    }
  }
}
