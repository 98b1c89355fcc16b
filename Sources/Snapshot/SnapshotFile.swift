import DeviceModel
import LinuxSystem

/// A snapshot that was opened: its header, directory and tables are sound; its pages are
/// when `verify` says so.
public final class SnapshotFile: Sendable {
  /// One memory, as far as this file has it.
  public struct Memory: Sendable {
    public let name: String
    public let size: Int
    /// Where its first page is in the file, or would be, if pages are at their own places.
    public let offset: UInt64
    /// Pages that are in the file.
    public let stored: DirtyPages
    /// Pages that are zero. Those that are neither are the base's.
    public let zero: DirtyPages
    fileprivate let checksums: [UInt64]
    /// Of each stored page, in pages of the file, if they are not.
    fileprivate let places: [UInt64]?
  }

  public let path: String
  public let descriptor: FileDescriptor
  public let identifier: [UInt8]
  /// The snapshot that this one completes.
  public let base: [UInt8]?
  /// Seconds since 1970.
  public let created: UInt64
  public let memories: [Memory]
  private let sections: [String: [UInt8]]

  /// Opens the file and checks all but the contents of memory.
  ///
  /// - Throws: kinds `notFound`, `notASnapshot`, `tooNew`, `damaged`, `inputOutput`.
  public init(path: String) throws(SnapshotError) {
    let file = try OpenFile(path)
    self.path = path
    descriptor = file.descriptor
    let header = try file.bytes(
      at: 0, count: min(file.size, UInt64(SnapshotFormat.pageSize)), of: "its header")
    let extent = try SnapshotFormat.directory(in: header, of: path)
    let directory: SnapshotFormat.Directory
    do {
      let bytes = try file.bytes(
        extent, atMost: SnapshotFormat.largestDirectory, of: "its directory")
      directory = try StateDecoder().decode(SnapshotFormat.Directory.self, from: bytes)
    } catch let error as StateError {
      throw SnapshotFormat.damaged(path, "its directory", cause: error)
    } catch {
      throw error as? SnapshotError ?? SnapshotFormat.damaged(path, "its directory")
    }
    guard directory.identifier.count == 16, directory.base.map({ $0.count == 16 }) ?? true else {
      throw SnapshotFormat.damaged(path, "its identifier")
    }
    identifier = directory.identifier
    base = directory.base
    created = directory.created
    var sections: [String: [UInt8]] = [:]
    for section in directory.sections {
      sections[section.name] = try file.bytes(
        section.extent, atMost: SnapshotFormat.largestDirectory, of: "section \(section.name)")
    }
    self.sections = sections
    var memories: [Memory] = []
    for memory in directory.memories { memories.append(try file.memory(memory)) }
    self.memories = memories
  }

  /// The names of the sections, sorted.
  public var sectionNames: [String] { sections.keys.sorted() }

  public func section(_ name: String) -> [UInt8]? { sections[name] }

  public func memory(_ name: String) -> Memory? { memories.first { $0.name == name } }

  /// Bytes of memory that are in the file.
  public var storedBytes: UInt64 {
    memories.reduce(0) { $0 + UInt64($1.stored.count * SnapshotFormat.pageSize) }
  }

  /// The sum that the format uses.
  public static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    SnapshotFormat.checksum(bytes)
  }

  /// Checks every stored page.
  ///
  /// - Parameter progress: told how many bytes were checked, now and then.
  public func verify(progress: (UInt64) -> Void = { _ in }) throws(SnapshotError) {
    var done: UInt64 = 0
    for memory in memories {
      _ = try verify(memory, memory.stored) {
        done += UInt64($0)
        progress(done)
        return true
      }
    }
  }

  /// Checks some of a memory's stored pages.
  ///
  /// - Parameter isWanted: told how many bytes were checked since it was asked last; `false`
  ///   ends it.
  /// - Returns: whether all were checked.
  func verify(
    _ memory: Memory, _ pages: DirtyPages, while isWanted: (Int) -> Bool = { _ in true }
  ) throws(SnapshotError) -> Bool {
    let pageSize = SnapshotFormat.pageSize
    // SAFETY: freed at the end of this call, and used within it only.
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: 256 * pageSize, alignment: pageSize)
    defer { buffer.deallocate() }
    let ranks = memory.ranks
    var isOver = false
    try memory.forEachPiece(of: pages, limit: 256) { (run, offset) throws(SnapshotError) in
      guard !isOver else { return }
      // SAFETY: a run is no longer than the buffer.
      let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<(run.count * pageSize)])
      try OpenFile.read(descriptor, into: part, at: offset, of: path)
      for index in 0..<run.count {
        // SAFETY: the page lies within the part.
        let page = UnsafeRawBufferPointer(
          rebasing: part[index * pageSize..<(index + 1) * pageSize])
        guard
          SnapshotFormat.checksum(page) == memory.checksum(of: run.lowerBound + index, ranks)
        else {
          throw SnapshotFormat.damaged(
            path, "page \(run.lowerBound + index) of memory \(memory.name)")
        }
      }
      isOver = !isWanted(part.count)
    }
    return !isOver
  }
}

extension SnapshotFile.Memory {
  /// How many pages are stored before each word of the set.
  fileprivate var ranks: [Int] {
    var (ranks, count) = ([Int](), 0)
    ranks.reserveCapacity(stored.words.count)
    for word in stored.words {
      ranks.append(count)
      count += word.nonzeroBitCount
    }
    return ranks
  }

  /// How many pages are stored before one.
  private func rank(of page: Int, _ ranks: [Int]) -> Int {
    let before = stored.words[page / 64] & (1 << UInt64(page % 64) - 1)
    return ranks[page / 64] + before.nonzeroBitCount
  }

  /// Of a page that is stored.
  fileprivate func checksum(of page: Int, _ ranks: [Int]) -> UInt64 {
    checksums[rank(of: page, ranks)]
  }

  /// Calls `body` with each run of pages that follow one another, in the file as well, none
  /// longer than `limit`, and with the offset of the first in the file.
  ///
  /// - Parameter pages: which are stored.
  func forEachPiece<Failure: Error>(
    of pages: DirtyPages, limit: Int = .max,
    _ body: (_ run: Range<Int>, _ offset: UInt64) throws(Failure) -> Void
  ) throws(Failure) {
    let pageSize = UInt64(SnapshotFormat.pageSize)
    guard let places else {
      return try pages.forEachRun(limit: limit) { (run) throws(Failure) in
        try body(run, offset + UInt64(run.lowerBound) * pageSize)
      }
    }
    let ranks = ranks
    try pages.forEachRun(limit: limit) { (run) throws(Failure) in
      // All of them are stored: their places follow one another in the table.
      let shift = rank(of: run.lowerBound, ranks) - run.lowerBound
      var start = run.lowerBound
      for end in run.lowerBound + 1...run.upperBound {
        guard end == run.upperBound || places[end + shift] != places[end - 1 + shift] + 1 else {
          continue
        }
        try body(start..<end, places[start + shift] * pageSize)
        start = end
      }
    }
  }
}

/// A file whose every part is suspect.
private struct OpenFile {
  let path: String
  let descriptor: FileDescriptor
  let size: UInt64

  init(_ path: String) throws(SnapshotError) {
    self.path = path
    do {
      descriptor = try FileDescriptor.open(path)
      size = try descriptor.size()
    } catch {
      throw SnapshotError(
        kind: error.kind == .notFound ? .notFound : .inputOutput,
        context: error.kind == .notFound
          ? "there is no snapshot \(path)" : "snapshot \(path): cannot open it", cause: error)
    }
  }

  func bytes(at offset: UInt64, count: UInt64, of what: String) throws(SnapshotError) -> [UInt8] {
    guard offset <= size, count <= size - offset else {
      throw SnapshotFormat.damaged(path, what)
    }
    var bytes = [UInt8](repeating: 0, count: Int(count))
    var failure: SnapshotError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeMutableBytes { buffer in
      do throws(SnapshotError) {
        try Self.read(descriptor, into: buffer, at: offset, of: path)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return bytes
  }

  func bytes(
    _ extent: SnapshotFormat.Extent, atMost limit: UInt64, of what: String
  ) throws(SnapshotError) -> [UInt8] {
    guard extent.length <= limit else { throw SnapshotFormat.damaged(path, what) }
    let bytes = try bytes(at: extent.offset, count: extent.length, of: what)
    guard SnapshotFormat.checksum(bytes) == extent.checksum else {
      throw SnapshotFormat.damaged(path, what)
    }
    return bytes
  }

  static func read(
    _ descriptor: FileDescriptor, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64,
    of path: String
  ) throws(SnapshotError) {
    let count: Int
    do {
      count = try descriptor.read(into: buffer, offset: offset)
    } catch {
      throw SnapshotWriter.error("read", path, error)
    }
    guard count == buffer.count else { throw SnapshotFormat.damaged(path, "its end") }
  }

  func memory(_ memory: SnapshotFormat.Memory) throws(SnapshotError) -> SnapshotFile.Memory {
    let pageSize = UInt64(SnapshotFormat.pageSize)
    let what = "the table of memory \(memory.name)"
    guard memory.size <= SnapshotFormat.largestMemory, memory.size % pageSize == 0,
      memory.offset % pageSize == 0, memory.offset <= SnapshotFormat.largestMemory
    else { throw SnapshotFormat.damaged(path, what) }
    let pages = Int(memory.size / pageSize)
    let stored = try pageSet(memory.stored, pages, what)
    let zero = try pageSet(memory.zero, pages, what)
    let checksums = try words(memory.checksums, stored.count, what)
    var both = stored
    both.formIntersection(zero)
    guard both.isEmpty else { throw SnapshotFormat.damaged(path, what) }
    var places: [UInt64]?
    if let extent = memory.places {
      let pagesOfFile = size / pageSize
      let found = try words(extent, stored.count, what)
      guard found.allSatisfy({ $0 < pagesOfFile }) else {
        throw SnapshotFormat.damaged(path, what)
      }
      places = found
    } else if let last = stored.last {
      guard memory.offset + UInt64(last + 1) * pageSize <= size else {
        throw SnapshotFormat.damaged(path, "its end")
      }
    }
    return SnapshotFile.Memory(
      name: memory.name, size: Int(memory.size), offset: memory.offset, stored: stored,
      zero: zero, checksums: checksums, places: places)
  }

  private func pageSet(
    _ extent: SnapshotFormat.Extent, _ pages: Int, _ what: String
  ) throws(SnapshotError) -> DirtyPages {
    let set = DirtyPages(words: try words(extent, (pages + 63) / 64, what))
    guard set.last.map({ $0 < pages }) ?? true else {
      throw SnapshotFormat.damaged(path, what)
    }
    return set
  }

  private func words(
    _ extent: SnapshotFormat.Extent, _ count: Int, _ what: String
  ) throws(SnapshotError) -> [UInt64] {
    guard extent.length == UInt64(count) * 8 else { throw SnapshotFormat.damaged(path, what) }
    // SAFETY: there are `count` words in the buffer.
    return try bytes(extent, atMost: extent.length, of: what).withUnsafeBytes { buffer in
      (0..<count).map {
        UInt64(littleEndian: buffer.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self))
      }
    }
  }
}
