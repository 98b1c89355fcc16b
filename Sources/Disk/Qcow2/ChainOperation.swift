import Glibc
import LinuxSystem

/// What is done to images that are based on each other. Each can be interrupted at any time,
/// by a crash too: every image reads as it did before until its header changes, which is
/// at once, and the operation can be repeated.
public enum ChainOperation {
  /// Told how many bytes of how many are done.
  public typealias Progress = (_ done: UInt64, _ total: UInt64) -> Void

  static let portion: UInt64 = 1 << 20

  /// The image that another one, at `path`, is to be based on.
  static func openBase(
    _ base: Qcow2Options.Backing, for path: String, _ policy: BackingPolicy
  ) throws(DiskError) -> any ImageLayer {
    let top = try? FileDescriptor.open(BackingChain.directory(of: path), [.directory])
    var policy = policy
    if policy.allowsOwnDirectory, let directory = top.flatMap(BackingChain.place) {
      policy.directories.append(directory)
      policy.allowsOwnDirectory = false
    }
    guard let top else {
      throw DiskError(
        kind: .notFound, context: "the directory of image \(path) does not exist; make it first")
    }
    var chain = BackingChain(top: top, path, policy)
    return try chain.open(BackingChain.resolve(base.name, from: path), base.format, for: path)
  }

  /// Has the image say that it is based on something else, or on nothing, and read
  /// accordingly.
  ///
  /// For a base that was moved, or one with the same contents.
  public static func rebaseUnsafely(
    _ path: String, onto base: Qcow2Options.Backing?
  ) throws(DiskError) {
    let image = try Qcow2Image.openAlone(path, isReadOnly: false)
    try image.setBacking(base)
    try image.close()
  }

  /// Has the image be based on something else, or on nothing, and read as it does now: what
  /// differs is copied to it.
  public static func rebase(
    _ path: String, onto base: Qcow2Options.Backing?, _ policy: BackingPolicy,
    progress: Progress = { _, _ in }
  ) throws(DiskError) {
    let image = try Qcow2Image.open(path, isReadOnly: false, policy)
    let layer = try base.map { base throws(DiskError) in try openBase(base, for: path, policy) }
    do throws(DiskError) {
      try rebase(image, onto: layer, named: base, progress: progress)
    } catch {
      // What was copied by then need not be copied again.
      try? image.close()
      throw error
    }
    layer?.unlock()
    try image.close()
  }

  /// The same of an image that is open, like what it is to be based on.
  ///
  /// - Parameter flushInterval: after so many bytes what was copied is there to stay. Who begins
  ///   anew goes on from there.
  package static func rebase(
    _ image: Qcow2Image, onto layer: (any ImageLayer)?, named base: Qcow2Options.Backing?,
    flushInterval: Int = 64 << 20, progress: Progress = { _, _ in }
  ) throws(DiskError) {
    let between = layer.flatMap { image.layers(above: $0) }
    var copied = 0
    try image.forEachExtent(progress) { mapping, offset, count throws(DiskError) in
      guard mapping == .unallocated else { return }
      // Over a base that stays the base's own.
      if let between, try !between.haveAnything(offset, count) { return }
      let (old, new) = (Scratch(count), Scratch(count))
      try image.fill([old.bytes], .unallocated, offset: offset)
      try layer?.readPadded(into: [new.bytes], offset: offset)
      copied += try copyDifferences(image, old, new, offset: offset)
      if copied >= flushInterval {
        try image.flush()
        copied = 0
      }
    }
    try image.flush()
    try image.setBacking(base)
  }

  /// Makes the image independent of what it is based on.
  public static func flatten(
    _ path: String, _ policy: BackingPolicy, progress: Progress = { _, _ in }
  ) throws(DiskError) {
    try rebase(path, onto: nil, policy, progress: progress)
  }

  /// - Returns: how many bytes differed.
  private static func copyDifferences(
    _ image: Qcow2Image, _ old: Scratch, _ new: Scratch, offset: UInt64
  ) throws(DiskError) -> Int {
    let size = image.geometry.clusterSize
    var (start, copied) = (0, 0)
    while start < old.bytes.count {
      let place = offset + UInt64(start)
      let count = min(
        old.bytes.count - start, size - Int(place & image.geometry.clusterMask))
      let part = UnsafeRawBufferPointer(rebasing: old.bytes[start..<start + count])
      let other = UnsafeRawBufferPointer(rebasing: new.bytes[start..<start + count])
      if !part.equals(other) {
        if part.isZero {
          try image.writeZeroes(place, UInt64(count), .zeroForAnyBacking)
        } else {
          try image.write(from: [part], offset: place)
        }
        copied += count
      }
      start += count
    }
    return copied
  }

  /// Writes what the image has of its own to the image that it is based on, which others are
  /// not based on: they would read other data from then on.
  ///
  /// - Parameter empties: whether the image has nothing of its own afterwards. What it reads
  ///   as is the same.
  public static func commit(
    _ path: String, _ policy: BackingPolicy, empties: Bool = true,
    progress: Progress = { _, _ in }
  ) throws(DiskError) {
    let (base, size) = try prepareCommit(path, policy)
    // While the base is written, the image reads its own clusters only.
    let image = try Qcow2Image.openAlone(path, isReadOnly: !empties)
    let target = try CommitTarget(base.path, base.format, size: size, policy)
    try commit(image, to: target, empties: empties, progress: progress)
    try image.close()
  }

  /// The same of an image that is open without what it is based on, which the target is.
  package static func commit(
    _ image: Qcow2Image, to target: CommitTarget, empties: Bool,
    progress: Progress = { _, _ in }
  ) throws(DiskError) {
    try image.forEachExtent(progress) { mapping, offset, count throws(DiskError) in
      switch mapping {
      case .unallocated: break
      case .zero: try target.writeZeroes(offset, UInt64(count))
      case .data, .compressed:
        let scratch = Scratch(count)
        try image.fill([scratch.bytes], mapping, offset: offset)
        try target.write(UnsafeRawBufferPointer(scratch.bytes), offset: offset)
      }
    }
    try target.close()
    if empties { try image.deallocateAll() }
  }

  /// Opens the chain as it is to be, so that what is wrong with it is found before anything
  /// is changed.
  private static func prepareCommit(
    _ path: String, _ policy: BackingPolicy
  ) throws(DiskError) -> (base: (path: String, format: ImageFormat), size: UInt64) {
    let image = try Qcow2Image.open(path, isReadOnly: true, policy)
    defer { image.unlock() }
    guard let layer = image.backing else {
      throw DiskError(kind: .backing, context: "image \(path) is based on nothing")
    }
    return ((layer.path, layer is RawLayer ? .raw : .qcow2), image.byteCount)
  }
}

extension Qcow2Image {
  /// What lies between it and one of the layers that it is based on; `nil` when it is not based
  /// on that one.
  fileprivate func layers(above base: any ImageLayer) -> [Qcow2Image]? {
    let wanted = BackingChain.canonical(base.path)
    var between: [Qcow2Image] = []
    var next = backing
    while let layer = next {
      if layer === base { return between }
      // Two whose names lead nowhere by now are not the same for that.
      if let wanted, BackingChain.canonical(layer.path) == wanted { return between }
      guard let image = layer as? Qcow2Image else { return nil }
      between.append(image)
      next = image.backing
    }
    return nil
  }
}

extension [Qcow2Image] {
  /// Whether any of them says what a range reads as.
  fileprivate func haveAnything(_ offset: UInt64, _ count: Int) throws(DiskError) -> Bool {
    let end = offset + UInt64(count)
    for image in self {
      // What is beyond its end reads as zeros.
      guard end <= image.byteCount else { return true }
      var place = offset
      while place < end {
        let extent = try image.guarded.withLock { metadata throws(DiskError) in
          try metadata.extent(at: place, count: Int(end - place))
        }
        guard extent.mapping == .unallocated else { return true }
        place += UInt64(extent.count)
      }
    }
    return false
  }
}

extension UnsafeRawBufferPointer {
  func equals(_ other: UnsafeRawBufferPointer) -> Bool {
    guard count == other.count else { return false }
    guard let start = baseAddress, let otherStart = other.baseAddress else { return true }
    return memcmp(start, otherStart, count) == 0
  }
}

extension Qcow2Image {
  /// Goes through the disk, at most a portion at a time and no more than a cluster where
  /// clusters are larger.
  func forEachExtent(
    _ progress: ChainOperation.Progress,
    _ body: (ClusterMapping, UInt64, Int) throws(DiskError) -> Void
  ) throws(DiskError) {
    let portion = max(ChainOperation.portion, UInt64(geometry.clusterSize))
    var offset: UInt64 = 0
    while offset < byteCount {
      let most = Int(min(portion - offset % portion, byteCount - offset))
      let extent = try guarded.withLock { metadata throws(DiskError) in
        try metadata.extent(at: offset, count: most)
      }
      try body(extent.mapping, offset, extent.count)
      offset += UInt64(extent.count)
      progress(offset, byteCount)
    }
  }

  /// Names another base, or none, at once.
  package func setBacking(_ base: Qcow2Options.Backing?) throws(DiskError) {
    try guarded.withLock { metadata throws(DiskError) in
      try metadata.prepareToWrite()
      var header = metadata.header
      header.setBacking(base?.name, format: base?.format.rawValue)
      try metadata.replaceHeader(header)
    }
  }

  func deallocateAll() throws(DiskError) {
    try writeZeroes(0, byteCount, .deallocate)
    try flush()
  }
}
