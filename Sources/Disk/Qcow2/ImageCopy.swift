import LinuxSystem

/// Makes a new image of what another one reads as.
public enum ImageCopy {
  /// Makes a qcow2 image that is based on nothing. It is there as a whole or not at all.
  ///
  /// - Parameters:
  ///   - snapshot: the name or identifier of an internal snapshot, instead of what the image
  ///     reads as now.
  ///   - compresses: whether clusters are compressed, where that saves room.
  ///   - options: of the new image; its size is that of the other.
  /// - Throws: kind `alreadyExists` when there is a file at `target`, `notFound` when there is
  ///   no such image or snapshot.
  public static func make(
    _ target: String, of path: String, _ policy: BackingPolicy, snapshot: String? = nil,
    compresses: Bool = false, options: Qcow2Options = Qcow2Options(byteCount: 0),
    permissions: UInt32 = 0o600, progress: ChainOperation.Progress = { _, _ in }
  ) throws(DiskError) {
    let source = try Qcow2Image.open(path, isReadOnly: true, policy, snapshot: snapshot)
    defer { source.unlock() }
    var options = options
    options.byteCount = (source.byteCount + 511) / 512 * 512
    try Qcow2Image.place(target, permissions) { file in
      let storage = FileStorage(file)
      try Qcow2Image.format(storage, options, path: target)
      let image = try Qcow2Image(path: target, storage: storage, isReadOnly: false)
      try copy(source, to: image, compresses: compresses, progress)
      try image.flush()
      try image.close()
      try file.synchronize()
    }
  }

  private static func copy(
    _ source: Qcow2Image, to target: Qcow2Image, compresses: Bool,
    _ progress: ChainOperation.Progress
  ) throws(DiskError) {
    let size = UInt64(target.geometry.clusterSize)
    let portion = max(ChainOperation.portion, size)
    var offset: UInt64 = 0
    while offset < target.byteCount {
      let count = min(portion, target.byteCount - offset)
      if try source.hasAnything(offset..<offset + count) {
        let scratch = Scratch(Int(count))
        try source.readPadded(into: [scratch.bytes], offset: offset)
        for start in stride(from: 0, to: Int(count), by: Int(size)) {
          // SAFETY: the part lies within the bytes, and is used only while they are there.
          let cluster = UnsafeRawBufferPointer(
            rebasing: scratch.bytes[start..<min(start + Int(size), Int(count))])
          guard !cluster.isZero else { continue }
          let place = offset + UInt64(start)
          if compresses {
            try target.writeCompressed(cluster, offset: place)
          } else {
            try target.write(from: [cluster], offset: place)
          }
        }
      }
      offset += count
      progress(offset, target.byteCount)
    }
  }
}

extension Qcow2Image {
  /// Whether a range, which may go beyond the end, is more than zeros by what the tables say.
  fileprivate func hasAnything(_ range: Range<UInt64>) throws(DiskError) -> Bool {
    var place = range.lowerBound
    let end = min(range.upperBound, byteCount)
    while place < end {
      let extent = try guarded.withLock { metadata throws(DiskError) in
        try metadata.extent(at: place, count: Int(end - place))
      }
      switch extent.mapping {
      case .zero: break
      case .unallocated where backing == nil: break
      case .unallocated, .data, .compressed: return true
      }
      place += UInt64(extent.count)
    }
    return false
  }
}
