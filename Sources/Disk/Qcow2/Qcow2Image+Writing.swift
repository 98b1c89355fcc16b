import LinuxSystem

extension Qcow2Image {
  /// Writes as much as is kept in one way; returns how much that was.
  func writeBeginning(
    of buffers: [UnsafeRawBufferPointer], offset: UInt64
  ) throws(DiskError) -> Int {
    let (plan, epoch) = try guarded.planWrite(offset, buffers.byteCount)
    switch plan {
    case .inPlace(let host, let count):
      defer { guarded.end(epoch) }
      try store(buffers.part(0, count), at: host)
      return count
    case .allocating(let allocation):
      do throws(DiskError) {
        try fill(allocation, buffers.part(0, allocation.count), offset: offset)
      } catch {
        try guarded.finish(allocation, epoch, isWritten: false)
        throw error
      }
      try guarded.finish(allocation, epoch, isWritten: true)
      return allocation.count
    case .busy, .needsGrowth: return 0
    }
  }

  private func store(_ buffers: [UnsafeRawBufferPointer], at host: UInt64) throws(DiskError) {
    do {
      try storage.write(buffers, offset: host)
    } catch {
      throw DiskError(image: path, "write", error)
    }
  }

  /// Writes the data to new clusters, together with what surrounds it in the first and last.
  private func fill(
    _ allocation: ClusterAllocation, _ data: [UnsafeRawBufferPointer], offset: UInt64
  ) throws(DiskError) {
    let skipped = Int(offset & geometry.clusterMask)
    let end = skipped + allocation.count
    let rest = allocation.clusters << geometry.clusterBits - end
    let before = try surroundings(
      skipped, allocation.head, offset: offset - UInt64(skipped), allocation)
    let after = try surroundings(
      rest, allocation.tail, offset: offset + UInt64(allocation.count), allocation)
    var pieces = data
    if let before { pieces.insert(UnsafeRawBufferPointer(before.bytes), at: 0) }
    if let after { pieces.append(UnsafeRawBufferPointer(after.bytes)) }
    try store(pieces, at: allocation.host + UInt64(before == nil ? skipped : 0))
  }

  /// What a new cluster has beside the data; `nil` where that is there without being written.
  private func surroundings(
    _ count: Int, _ mapping: ClusterMapping, offset: UInt64, _ allocation: ClusterAllocation
  ) throws(DiskError) -> Scratch? {
    guard count > 0 else { return nil }
    let isZero =
      switch mapping {
      case .zero: true
      case .unallocated: offset >= (backing?.byteCount ?? 0)
      default: false
      }
    if isZero, allocation.isVirgin { return nil }
    let scratch = Scratch(count)
    let isWithin = offset < byteCount
    if !isZero, isWithin {
      let length = Int(min(UInt64(count), byteCount - offset))
      let place = mapping.advanced(by: offset & geometry.clusterMask)
      try fill([scratch.bytes].part(0, length), place, offset: offset)
      if allocation.isVirgin, scratch.isZero { return nil }
    }
    return scratch
  }
}

extension Qcow2Image {
  /// Lets go of what is stored in a range, whose contents do not matter any more. Parts of
  /// clusters keep theirs.
  public func discard(offset: UInt64, count: UInt64) throws(DiskError) {
    try checkWrite(offset, count)
    let (first, last) = wholeClusters(offset, count)
    try clearClusters(first, last, .discard)
  }

  /// Makes a range read as zeros.
  ///
  /// - Parameter mayDiscard: whether its storage may be let go of.
  public func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool
  ) throws(DiskError) {
    try writeZeroes(offset, count, mayDiscard ? .zeroSparsely : .zero)
  }

  func writeZeroes(
    _ offset: UInt64, _ count: UInt64, _ way: ClusterClearing
  ) throws(DiskError) {
    try checkWrite(offset, count)
    guard count > 0 else { return }
    let (first, last) = wholeClusters(offset, count)
    let end = offset + count
    guard first < last else { return try writeZeros(offset, count, way) }
    let start = first << UInt64(geometry.clusterBits)
    try writeZeros(offset, start - offset, way)
    try clearClusters(first, last, way)
    let rest = min(last << UInt64(geometry.clusterBits), end)
    try writeZeros(rest, end - rest, way)
  }

  /// The clusters that are within a range as a whole; the disk's last one has no more bytes
  /// than the disk.
  private func wholeClusters(_ offset: UInt64, _ count: UInt64) -> (UInt64, UInt64) {
    let first = geometry.clusters(for: offset)
    let end = offset + count
    let last = end == byteCount ? geometry.clusters(for: end) : end >> UInt64(geometry.clusterBits)
    return (first, max(first, last))
  }

  private func clearClusters(
    _ first: UInt64, _ end: UInt64, _ way: ClusterClearing
  ) throws(DiskError) {
    var cluster = first
    while cluster < end {
      switch try guarded.clear(cluster, count: Int(clamping: end - cluster), way) {
      case .done(let count): cluster += UInt64(count)
      case .mustWrite(let count):
        let offset = cluster << UInt64(geometry.clusterBits)
        let bytes = UInt64(count) << UInt64(geometry.clusterBits)
        try writeZeros(offset, min(bytes, byteCount - offset), way)
        cluster += UInt64(count)
      case .busy, .needsGrowth: continue
      }
    }
  }

  /// Zeros as data, where a range reads as something else: parts of a cluster.
  private func writeZeros(
    _ offset: UInt64, _ count: UInt64, _ way: ClusterClearing
  ) throws(DiskError) {
    guard count > 0 else { return }
    let zeros = Scratch(Int(min(count, UInt64(geometry.clusterSize))))
    var done: UInt64 = 0
    while done < count {
      let place = offset + done
      let rest = Int(min(count - done, UInt64(zeros.bytes.count)))
      let extent = try guarded.withLock { metadata throws(DiskError) in
        try metadata.extent(at: place, count: rest)
      }
      let isZero =
        switch extent.mapping {
        case .zero: true
        case .unallocated: way != .zeroForAnyBacking && place >= (backing?.byteCount ?? 0)
        default: false
        }
      if !isZero {
        try write(
          from: [UnsafeRawBufferPointer(zeros.bytes)].part(0, extent.count), offset: place)
      }
      done += UInt64(extent.count)
    }
  }
}
