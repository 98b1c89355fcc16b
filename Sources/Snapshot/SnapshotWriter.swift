import DeviceModel
import LinuxSystem

/// Writes a snapshot next to where it is to be, and puts it there when it is whole: until
/// `finish`, and when that throws, the path holds what it held before.
public final class SnapshotWriter {
  public let path: String
  private let output: any SnapshotOutput
  private var directory: SnapshotFormat.Directory
  private var memories: [MemoryWriter] = []
  /// Of what there is in the file, a multiple of the page size.
  private let end = Guarded(UInt64(SnapshotFormat.pageSize))
  private var isFinished = false

  /// - Parameters:
  ///   - identifier: 16 bytes that no other snapshot has.
  ///   - base: the identifier of the snapshot that this one completes.
  ///   - created: seconds since 1970.
  public convenience init(
    path: String, identifier: [UInt8], base: [UInt8]? = nil, created: UInt64
  ) throws(SnapshotError) {
    let draft: SnapshotDraft
    do {
      draft = try SnapshotDraft(of: path)
    } catch {
      throw Self.error("make", path, error)
    }
    self.init(path: path, identifier: identifier, base: base, created: created, output: draft)
  }

  /// - Parameter output: where it is written instead of next to `path`.
  package init(
    path: String, identifier: [UInt8], base: [UInt8]?, created: UInt64, output: any SnapshotOutput
  ) {
    self.path = path
    self.output = output
    directory = SnapshotFormat.Directory(
      identifier: identifier, base: base, created: created, sections: [], memories: [])
  }

  deinit {
    if !isFinished { output.abandon() }
  }

  /// Adds a section.
  public func add(_ name: String, _ bytes: [UInt8]) throws(SnapshotError) {
    directory.sections.append(.init(name: name, extent: try append(bytes)))
  }

  /// Adds a memory of `size` bytes, a whole number of pages. Its pages may be stored, also
  /// again, until the snapshot is finished. Those of one that completes another take no more
  /// of the file than they are: whoever copies it reads all of that, holes as well.
  public func addMemory(_ name: String, size: Int) throws(SnapshotError) -> MemoryWriter {
    let isComplete = directory.base == nil
    let memory = MemoryWriter(
      name: name, size: size, output: output, end: end,
      offset: isComplete ? end.take(UInt64(size)) : nil, path: path)
    memories.append(memory)
    return memory
  }

  /// Makes everything durable, then puts it in its place.
  public func finish() throws(SnapshotError) {
    for memory in memories {
      let tables = memory.tables
      directory.memories.append(
        .init(
          name: memory.name, size: UInt64(memory.size), offset: memory.offset ?? 0,
          stored: try append(bytes(tables.stored.words)),
          zero: try append(bytes(tables.zero.words)),
          checksums: try append(bytes(tables.checksums)),
          places: memory.offset == nil ? try append(bytes(tables.storedPlaces)) : nil))
    }
    let encoded: [UInt8]
    do {
      encoded = try StateEncoder().encode(directory)
    } catch {
      throw SnapshotError(
        kind: .inputOutput, context: "snapshot \(path) could not be encoded", cause: error)
    }
    let header = SnapshotFormat.header(
      of: try append(encoded), isCompact: directory.memories.contains { $0.places != nil })
    do {
      try output.synchronize()
      try output.write(header, offset: 0)
      try output.synchronize()
      try output.place()
    } catch {
      throw Self.error("write", path, error)
    }
    isFinished = true
  }

  private func append(_ bytes: [UInt8]) throws(SnapshotError) -> SnapshotFormat.Extent {
    let (page, length) = (UInt64(SnapshotFormat.pageSize), UInt64(bytes.count))
    let extent = SnapshotFormat.Extent(
      offset: end.take((length + page - 1) / page * page), length: length,
      checksum: SnapshotFormat.checksum(bytes))
    do {
      try output.write(bytes, offset: extent.offset)
    } catch {
      throw Self.error("write", path, error)
    }
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

extension Guarded<UInt64> {
  /// The end of a file, which moves by that much.
  fileprivate func take(_ count: UInt64) -> UInt64 {
    change { end in
      defer { end += count }
      return end
    }
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
    /// By page, in pages of the file, where they have no region; 0 before one has a place.
    var places: [UInt64]

    /// Of the stored pages, in their order.
    var checksums: [UInt64] {
      sums.indices.filter { stored.contains(page: $0) }.map { sums[$0] }
    }

    var storedPlaces: [UInt64] {
      places.indices.filter { stored.contains(page: $0) }.map { places[$0] }
    }
  }

  let name: String
  let size: Int
  /// Of its region; `nil` when it has none.
  let offset: UInt64?
  private let end: Guarded<UInt64>
  private let output: any SnapshotOutput
  private let path: String
  private let state: Guarded<Tables>

  init(
    name: String, size: Int, output: any SnapshotOutput, end: Guarded<UInt64>, offset: UInt64?,
    path: String
  ) {
    self.name = name
    self.size = size
    self.output = output
    self.end = end
    self.offset = offset
    self.path = path
    let pages = size / SnapshotFormat.pageSize
    state = Guarded(
      Tables(
        stored: DirtyPages(pageCount: pages),
        // What completes another says of each page that it is zero.
        zero: DirtyPages(pageCount: pages, allDirty: offset != nil),
        sums: Array(repeating: 0, count: pages),
        places: Array(repeating: 0, count: offset == nil ? pages : 0)))
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
        // SAFETY: the run lies within `bytes`.
        let part = UnsafeRawBufferPointer(rebasing: bytes[run * pageSize..<end * pageSize])
        try write(part, at: first + run)
      }
      run = end
    }
    note(sums, first)
  }

  private func write(_ bytes: UnsafeRawBufferPointer, at first: Int) throws(SnapshotError) {
    let pageSize = SnapshotFormat.pageSize
    do {
      for (pages, offset) in pieces(of: first..<first + bytes.count / pageSize) {
        let range = (pages.lowerBound - first) * pageSize..<(pages.upperBound - first) * pageSize
        // SAFETY: the pieces are those of the pages in `bytes`.
        try output.write(UnsafeRawBufferPointer(rebasing: bytes[range]), offset: offset)
      }
    } catch {
      throw SnapshotWriter.error("write", path, error)
    }
  }

  /// Where pages are in the file, those together that follow one another there, too. A page
  /// keeps its place.
  private func pieces(of pages: Range<Int>) -> [(pages: Range<Int>, offset: UInt64)] {
    let pageSize = UInt64(SnapshotFormat.pageSize)
    if let offset { return [(pages, offset + UInt64(pages.lowerBound) * pageSize)] }
    return state.change { tables in
      let new = pages.count { tables.places[$0] == 0 }
      var next = end.take(UInt64(new) * pageSize) / pageSize
      var pieces: [(pages: Range<Int>, offset: UInt64)] = []
      for page in pages {
        if tables.places[page] == 0 {
          tables.places[page] = next
          next += 1
        }
        let place = tables.places[page] * pageSize
        if let last = pieces.last, last.offset + UInt64(last.pages.count) * pageSize == place {
          pieces[pieces.count - 1].pages = last.pages.lowerBound..<page + 1
        } else {
          pieces.append((page..<page + 1, place))
        }
      }
      return pieces
    }
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
