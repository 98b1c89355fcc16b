import LinuxSystem

/// An open qcow2 image (docs/interop/qcow2), of version 2 or 3.
///
/// Requests come from several threads and are carried out at once: the tables are looked up
/// and changed under a lock, and data is moved without it. Writes that allocate the same
/// cluster take turns. What was written is durable once `flush` has returned; after a crash
/// before, each sector is as it was or as it was written.
public final class Qcow2Image: ImageLayer {
  public let path: String
  public let byteCount: UInt64
  public let isReadOnly: Bool
  /// What unallocated clusters read as; `nil` for zeros.
  public let backing: (any ImageLayer)?

  let storage: any ImageStorage
  let geometry: Qcow2Geometry
  let compression: Qcow2Header.Compression
  let guarded: GuardedMetadata
  private let decompressed = Guarded<DecompressedCluster?>(nil)

  /// - Parameters:
  ///   - storage: locked by whoever opened it.
  ///   - snapshot: the name or identifier of an internal snapshot to read.
  ///   - cacheBytes: how much memory L2 tables may take; a few are kept in any case.
  package init(
    path: String, storage: any ImageStorage, isReadOnly: Bool, backing: (any ImageLayer)? = nil,
    snapshot: String? = nil, cacheBytes: Int? = nil
  ) throws(DiskError) {
    self.path = path
    self.storage = storage
    self.backing = backing
    let (header, sector) = try Qcow2Header.read(storage, path)
    let chosen = try snapshot.map { name throws(DiskError) in
      try InternalSnapshot.named(name, of: header, storage, path)
    }
    let isReadOnly = isReadOnly || snapshot != nil
    guard isReadOnly || !header.isCorrupt else {
      throw DiskError(
        kind: .corrupt,
        context: "image \(path) is marked as corrupt and may only be read; attach it read-only"
          + " to save its contents, or repair it with qemu-img check -r all")
    }
    let metadata = try Qcow2Metadata(
      path: path, storage: storage, header: header, sector: sector, isReadOnly: isReadOnly,
      snapshot: chosen, cacheBytes: cacheBytes ?? Qcow2Metadata.cacheBytes)
    metadata.backingByteCount = backing?.byteCount ?? 0
    byteCount = metadata.header.size
    self.isReadOnly = isReadOnly
    geometry = metadata.geometry
    compression = header.compression
    if header.isDirty, !isReadOnly { try ImageRepair.repairCounts(metadata) }
    guarded = GuardedMetadata(metadata)
  }

  /// - Parameter buffers: together the size of what is read.
  public func read(
    into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64
  ) throws(DiskError) {
    let total = buffers.byteCount
    try checkRange(offset, total)
    var done = 0
    while done < total {
      let place = offset + UInt64(done)
      let ((extent, generation), epoch) = try guarded.begin { metadata throws(DiskError) in
        (try metadata.extent(at: place, count: total - done), metadata.freeGeneration)
      }
      do throws(DiskError) {
        try fill(
          buffers.part(done, extent.count), extent.mapping, offset: place, generation: generation)
      } catch {
        guarded.end(epoch)
        throw error
      }
      guarded.end(epoch)
      done += extent.count
    }
  }

  /// Writes all of the buffers, one after another.
  public func write(from buffers: [UnsafeRawBufferPointer], offset: UInt64) throws(DiskError) {
    let total = buffers.byteCount
    try checkWrite(offset, UInt64(total))
    var done = 0
    while done < total {
      done += try writeBeginning(
        of: buffers.part(done, total - done), offset: offset + UInt64(done))
    }
  }

  /// Makes all that was written durable.
  public func flush() throws(DiskError) {
    guard !isReadOnly else { return }
    try guarded.commit()
  }

  /// Stores everything and lets others use the image. Requests are not made any more.
  public func close() throws(DiskError) {
    defer { unlock() }
    try makeWhole()
  }

  /// Stores everything, so that nothing is left to repair and no room is lost. No request is
  /// under way.
  func makeWhole() throws(DiskError) {
    guard !isReadOnly else { return }
    try guarded.close()
  }

  public var layers: [LayerDescription] {
    [LayerDescription(path: path, format: .qcow2)] + (backing?.layers ?? [])
  }

  public func unlock() {
    storage.unlock()
    backing?.unlock()
  }

  func checkRange(_ offset: UInt64, _ count: Int) throws(DiskError) {
    guard offset <= byteCount, UInt64(count) <= byteCount - offset else {
      throw DiskError(
        kind: .outOfRange,
        context: "image \(path): \(count) bytes at \(offset) are beyond its end at \(byteCount)")
    }
  }

  func checkWrite(_ offset: UInt64, _ count: UInt64) throws(DiskError) {
    guard !isReadOnly else {
      throw DiskError(kind: .readOnly, context: "image \(path) is open for reading only")
    }
    try checkRange(offset, Int(clamping: count))
  }

  /// Fills buffers with what a guest's range is mapped to.
  ///
  /// - Parameter generation: of what was free when it was looked up; `nil` when that is not
  ///   known.
  func fill(
    _ buffers: [UnsafeMutableRawBufferPointer], _ mapping: ClusterMapping, offset: UInt64,
    generation: UInt64? = nil
  ) throws(DiskError) {
    switch mapping {
    case .zero: buffers.clear()
    case .unallocated:
      if let backing {
        try backing.readPadded(into: buffers, offset: offset)
      } else {
        buffers.clear()
      }
    case .data(let host, _):
      do {
        try storage.readPadded(into: buffers, offset: host)
      } catch {
        throw DiskError(image: path, "read", error)
      }
    case .compressed(let host, let count):
      let skipped = Int(offset & geometry.clusterMask)
      let cluster = try decompress(host, count, generation)
      buffers.copy(from: UnsafeRawBufferPointer(rebasing: cluster.bytes[skipped...]))
    }
  }

  private func decompress(
    _ host: UInt64, _ count: Int, _ generation: UInt64?
  ) throws(DiskError) -> Scratch {
    let kept = decompressed.withLock { $0 }
    if let kept, kept.host == host, kept.generation == generation { return kept.bytes }
    let (input, output) = (Scratch(count), Scratch(geometry.clusterSize))
    do {
      try storage.readPadded(into: [input.bytes], offset: host)
    } catch {
      throw DiskError(image: path, "read", error)
    }
    guard
      ClusterCompression.decompress(
        UnsafeRawBufferPointer(input.bytes), into: output.bytes, compression)
    else {
      throw DiskError(path, .corrupt("the compressed cluster at \(host) cannot be decompressed"))
    }
    if let generation {
      decompressed.withLock { $0 = DecompressedCluster(host, generation, output) }
    }
    return output
  }
}

// SAFETY: nobody writes the bytes any more.
/// The compressed cluster that was read last.
private struct DecompressedCluster: @unchecked Sendable {
  let host: UInt64
  /// What was free then: another cluster cannot have taken its place before that changes.
  let generation: UInt64
  let bytes: Scratch

  init(_ host: UInt64, _ generation: UInt64, _ bytes: Scratch) {
    (self.host, self.generation, self.bytes) = (host, generation, bytes)
  }
}

extension Qcow2Image {
  /// The image's internal snapshots.
  public func snapshots() throws(DiskError) -> [InternalSnapshot] {
    let header = guarded.withLock { $0.header }
    return try InternalSnapshot.table(of: header, storage, path).snapshots
  }

  package var header: Qcow2Header { guarded.withLock { $0.header } }

  /// For callers with bytes of their own.
  package func read(_ count: Int, at offset: UInt64) throws(DiskError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var failure: DiskError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeMutableBytes { buffer in
      do throws(DiskError) { try read(into: [buffer], offset: offset) } catch { failure = error }
    }
    if let failure { throw failure }
    return bytes
  }

  package func write(_ bytes: [UInt8], at offset: UInt64) throws(DiskError) {
    var failure: DiskError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do throws(DiskError) { try write(from: [buffer], offset: offset) } catch { failure = error }
    }
    if let failure { throw failure }
  }
}

extension Qcow2Header {
  /// - Returns: the header, and its first sector as it is stored.
  static func read(
    _ storage: any ImageStorage, _ path: String
  ) throws(DiskError) -> (Qcow2Header, [UInt8]) {
    do {
      let start = try storage.read(sectorSize, at: 0)
      let size = try explaining(path) { () throws(FormatProblem) in try clusterSize(start) }
      let cluster = try storage.read(size, at: 0)
      return try explaining(path) { () throws(FormatProblem) in
        (try Qcow2Header(parsing: cluster), start)
      }
    } catch let error as SystemError {
      throw DiskError(image: path, "read the header", error)
    } catch let error as DiskError {
      throw error
    } catch {
      throw DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
  }
}

extension InternalSnapshot {
  static func table(
    of header: Qcow2Header, _ storage: any ImageStorage, _ path: String
  ) throws(DiskError) -> (snapshots: [InternalSnapshot], length: Int) {
    guard header.snapshotCount > 0 else { return ([], 0) }
    var count = 1 << 16
    while true {
      let bytes: [UInt8]
      let isAll: Bool
      do {
        let size = try storage.size()
        let rest = size > header.snapshotsOffset ? size - header.snapshotsOffset : 0
        isAll = rest <= UInt64(count) || count >= mostBytes
        bytes = try storage.read(Int(min(rest, UInt64(count))), at: header.snapshotsOffset)
      } catch {
        throw DiskError(image: path, "read the snapshots", error)
      }
      do throws(FormatProblem) {
        return try parse(bytes, count: Int(header.snapshotCount), size: header.size)
      } catch {
        // Its length is known only when it was read.
        guard !isAll else { throw DiskError(path, error) }
        count *= 8
      }
    }
  }

  static func named(
    _ name: String, of header: Qcow2Header, _ storage: any ImageStorage, _ path: String
  ) throws(DiskError) -> InternalSnapshot {
    let snapshots = try table(of: header, storage, path).snapshots
    guard
      let snapshot = snapshots.first(where: { $0.identifier == name })
        ?? snapshots.first(where: { $0.name == name })
    else {
      throw DiskError(
        kind: .notFound,
        context: "image \(path) has no snapshot \(name); qemu-img snapshot -l lists them")
    }
    return snapshot
  }
}
