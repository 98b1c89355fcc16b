/// What lies between an image and the one that it is to be based on: none of it is needed any
/// more once the image has it itself.
struct LayersBetween {
  let layers: [any ImageLayer]

  /// How much from `offset` on one of them says what it reads as, or none does.
  func extent(at offset: UInt64, count: Int) throws(DiskError) -> (isSaid: Bool, count: Int) {
    var count = count
    for layer in layers {
      // A raw image says everything, and what is beyond an image's end reads as zeros.
      guard let image = layer as? Qcow2Image, offset < image.byteCount else { return (true, count) }
      count = Int(min(UInt64(count), image.byteCount - offset))
      let extent = try image.guarded.withLock { metadata throws(DiskError) in
        try metadata.extent(at: offset, count: count)
      }
      count = min(count, extent.count)
      guard extent.mapping == .unallocated else { return (true, count) }
    }
    return (false, count)
  }
}

extension Qcow2Image {
  /// Has the image say itself what the beginning of a range reads as, where it does not yet and
  /// one of the layers does. Others may read and write the image meanwhile.
  ///
  /// - Parameter offset: a multiple of the cluster's size.
  /// - Returns: how many bytes are done, and how many of them were copied.
  func populate(
    _ offset: UInt64, _ count: Int, from between: LayersBetween
  ) throws(DiskError) -> (done: Int, copied: Int) {
    let own = try guarded.withLock { metadata throws(DiskError) in
      try metadata.extent(at: offset, count: count)
    }
    guard own.mapping == .unallocated else { return (own.count, 0) }
    let extent = try between.extent(at: offset, count: own.count)
    // Of a cluster that only one part of is said, all is copied.
    let whole = extent.count & ~Int(geometry.clusterMask)
    let wanted = whole > 0 ? whole : min(geometry.clusterSize, own.count)
    guard extent.isSaid || whole == 0 else { return (whole, 0) }
    let (plan, epoch) = try guarded.planWrite(offset, wanted)
    switch plan {
    case .inPlace(_, let count):
      // Somebody wrote it just now.
      guarded.end(epoch)
      return (count, 0)
    case .allocating(let allocation):
      do throws(DiskError) {
        try copy(to: allocation, offset: offset)
      } catch {
        try guarded.finish(allocation, epoch, isWritten: false)
        throw error
      }
      try guarded.finish(allocation, epoch, isWritten: true)
      return (allocation.count, allocation.count)
    case .busy, .needsGrowth: return (0, 0)
    }
  }

  /// Fills new clusters with what they read as until now. Nobody else changes that meanwhile.
  private func copy(
    to allocation: ClusterAllocation, offset: UInt64
  ) throws(DiskError) {
    let bytes = Scratch(allocation.clusters << geometry.clusterBits)
    try read(into: [bytes.bytes].part(0, allocation.count), offset: offset)
    // Clusters that were never written are zeros already, once the file reaches so far.
    let skipped = allocation.isVirgin && bytes.isZero ? bytes.bytes.count - 512 : 0
    do {
      try storage.write(
        [UnsafeRawBufferPointer(rebasing: bytes.bytes[skipped...])],
        offset: allocation.host + UInt64(skipped))
    } catch {
      throw DiskError(image: path, "write", error)
    }
  }
}
