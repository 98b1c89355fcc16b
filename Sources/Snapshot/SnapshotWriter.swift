import DeviceModel
import LinuxSystem

/// Writes a snapshot next to where it is to be, and puts it there when it is whole: until
/// `finish`, and when that throws, the path holds what it held before.
public final class SnapshotWriter {
  public let path: String
  private let temporary: String
  private let descriptor: FileDescriptor
  private var directory: SnapshotFormat.Directory
  private var memories: [MemoryWriter] = []
  private var end = UInt64(SnapshotFormat.pageSize)
  private var isFinished = false

  /// - Parameters:
  ///   - identifier: 16 bytes that no other snapshot has.
  ///   - base: the identifier of the snapshot that this one completes.
  ///   - created: seconds since 1970.
  public init(
    path: String, identifier: [UInt8], base: [UInt8]? = nil, created: UInt64
  ) throws(SnapshotError) {
    self.path = path
    temporary = "\(path).new"
    directory = SnapshotFormat.Directory(
      identifier: identifier, base: base, created: created, sections: [], memories: [])
    do {
      descriptor = try FileDescriptor.open(temporary, [.writable, .create, .truncate])
    } catch {
      throw Self.error("make", path, error)
    }
  }

  deinit {
    if !isFinished { try? Files.remove(temporary) }
  }

  /// Adds a section.
  public func add(_ name: String, _ bytes: [UInt8]) throws(SnapshotError) {
    directory.sections.append(.init(name: name, extent: try append(bytes)))
  }

  /// Adds a memory of `size` bytes, a whole number of pages. Its pages may be stored, also
  /// again, until the snapshot is finished.
  public func addMemory(_ name: String, size: Int) throws(SnapshotError) -> MemoryWriter {
    let memory = MemoryWriter(
      name: name, size: size, descriptor: descriptor, offset: end,
      isComplete: directory.base == nil, path: path)
    end += UInt64(size)
    memories.append(memory)
    return memory
  }

  /// Makes everything durable, then puts it in its place.
  public func finish() throws(SnapshotError) {
    for memory in memories {
      let tables = memory.tables
      directory.memories.append(
        .init(
          name: memory.name, size: UInt64(memory.size), offset: memory.offset,
          stored: try append(bytes(tables.stored.words)),
          zero: try append(bytes(tables.zero.words)),
          checksums: try append(bytes(tables.checksums))))
    }
    let encoded: [UInt8]
    do {
      encoded = try StateEncoder().encode(directory)
    } catch {
      throw SnapshotError(
        kind: .inputOutput, context: "snapshot \(path) could not be encoded", cause: error)
    }
    let header = SnapshotFormat.header(of: try append(encoded))
    do {
      try descriptor.synchronize()
      try descriptor.write(header[...], offset: 0)
      try descriptor.synchronize()
      try Files.move(temporary, to: path)
    } catch {
      throw Self.error("write", path, error)
    }
    isFinished = true
  }

  private func append(_ bytes: [UInt8]) throws(SnapshotError) -> SnapshotFormat.Extent {
    let extent = SnapshotFormat.Extent(
      offset: end, length: UInt64(bytes.count), checksum: SnapshotFormat.checksum(bytes))
    do {
      try descriptor.write(bytes[...], offset: end)
    } catch {
      throw Self.error("write", path, error)
    }
    let page = UInt64(SnapshotFormat.pageSize)
    end += (extent.length + page - 1) / page * page
    return extent
  }

  private func bytes(_ words: [UInt64]) -> [UInt8] {
    // SAFETY: the buffer is used only within the call.
    words.map(\.littleEndian).withUnsafeBytes { Array($0) }
  }

  static func error(_ verb: String, _ path: String, _ error: SystemError) -> SnapshotError {
    guard error.kind == .noSpace else {
      return SnapshotError(
        kind: .inputOutput, context: "snapshot \(path): cannot \(verb) it", cause: error)
    }
    return SnapshotError(
      kind: .noSpace,
      context: "there is no room for snapshot \(path); delete others, or make room on its disk",
      cause: error)
  }
}

/// Stores one memory's pages. Several threads may, but not the same page at once.
// SAFETY: the tables are touched under `Guarded`'s lock; all else is immutable.
public final class MemoryWriter: Sendable {
  struct Tables: Sendable {
    var stored: DirtyPages
    var zero: DirtyPages
    /// By page.
    var sums: [UInt64]

    /// Of the stored pages, in their order.
    var checksums: [UInt64] {
      sums.indices.filter { stored.contains(page: $0) }.map { sums[$0] }
    }
  }

  let name: String
  let size: Int
  let offset: UInt64
  private let descriptor: FileDescriptor
  private let path: String
  private let state: Guarded<Tables>

  init(
    name: String, size: Int, descriptor: FileDescriptor, offset: UInt64, isComplete: Bool,
    path: String
  ) {
    self.name = name
    self.size = size
    self.descriptor = descriptor
    self.offset = offset
    self.path = path
    let pages = size / SnapshotFormat.pageSize
    state = Guarded(
      Tables(
        stored: DirtyPages(pageCount: pages),
        zero: DirtyPages(pageCount: pages, allDirty: isComplete),
        sums: Array(repeating: 0, count: pages)))
  }

  var tables: Tables { state.withLock { $0 } }

  /// Stores the pages from `first` on, in place of what was stored of them before. Zero pages
  /// take no room.
  ///
  /// `bytes` may change meanwhile, if those pages are stored again afterwards.
  public func store(_ bytes: UnsafeRawBufferPointer, at first: Int) throws(SnapshotError) {
    let pageSize = SnapshotFormat.pageSize
    let count = bytes.count / pageSize
    precondition(first >= 0 && (first + count) * pageSize <= size)
    var sums: [UInt64?] = []
    for index in 0..<count {
      // SAFETY: the page lies within `bytes`.
      let page = UnsafeRawBufferPointer(
        rebasing: bytes[index * pageSize..<(index + 1) * pageSize])
      sums.append(page.isZero ? nil : SnapshotFormat.checksum(page))
    }
    var run = 0
    while run < count {
      let isZero = sums[run] == nil
      let end = sums[run...].firstIndex { ($0 == nil) != isZero } ?? count
      if !isZero {
        do {
          try descriptor.write(
            // SAFETY: the run lies within `bytes`.
            UnsafeRawBufferPointer(rebasing: bytes[run * pageSize..<end * pageSize]),
            offset: offset + UInt64((first + run) * pageSize))
        } catch {
          throw SnapshotWriter.error("write", path, error)
        }
      }
      run = end
    }
    note(sums, first)
  }

  private func note(_ sums: [UInt64?], _ first: Int) {
    state.change { tables in
      for (index, sum) in sums.enumerated() {
        let page = first + index
        if let sum {
          tables.sums[page] = sum
          tables.stored.insert(page: page)
          tables.zero.remove(page: page)
        } else {
          tables.stored.remove(page: page)
          tables.zero.insert(page: page)
        }
      }
    }
  }
}
