import CarrelBase
import DeviceModel
import LinuxSystem

/// Opens snapshots that somebody made with bad intentions. Shared by the fuzz target and the
/// tests.
package enum SnapshotFuzzing {
  private static let pageSize = SnapshotFormat.pageSize
  private static let memoryName = "ram"
  private static let pageCount = 70
  /// What pages of a whole snapshot hold, and what one that completes it says of them.
  private static let first: [Int: UInt8] = [0: 1, 1: 2, 64: 3, 69: 4]
  private static let changed: [Int: UInt8] = [1: 0, 2: 5, 69: 6]

  /// The first byte says whether the snapshot completes another (1), whether its sums are left
  /// as they are (2), and whether the rest is a file of its own (128); the second how many
  /// changes are made to a sound one, which follow, five bytes each, and then the contents of
  /// sections.
  ///
  /// - Parameter look: gets what was opened.
  /// - Returns: `false` when one that nobody changed is not what it is, or where one that was
  ///   accepted has pages that are none, or is found sound and damaged.
  package static func run(
    _ program: [UInt8], look: (SnapshotChain) -> Void = { _ in }
  ) -> Bool {
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    let choice = next()
    let completes = choice & 1 != 0
    if choice & 0x80 != 0 {
      return open(Array(rest), completes: completes, model: nil, look)
    }
    let changes = next()
    let edits = rest.prefix(Int(changes) * 5)
    var draft = Draft(completes: completes, section: Array(rest.dropFirst(edits.count)))
    rest = edits
    while !rest.isEmpty {
      draft.change(next(), Int(next()), UInt64(next()) << 8 | UInt64(next()), next())
    }
    var model: [UInt8]?
    if changes == 0, choice & 2 == 0 {
      model = (0..<pageCount).map { (completes ? changed[$0] : nil) ?? first[$0] ?? 0 }
    }
    return open(
      draft.finished(hasRightSums: choice & 2 == 0), completes: completes, model: model, look)
  }

  private static let base: SharedMemory? = try? file(
    Draft(completes: false, section: []).finished(hasRightSums: true))

  private static func file(_ bytes: [UInt8]) throws(SystemError) -> SharedMemory {
    let file = try SharedMemory(name: "snapshot", size: bytes.count)
    try file.descriptor.write(bytes[...], offset: 0)
    return file
  }

  private static func path(_ file: SharedMemory) -> String {
    "/proc/self/fd/\(file.descriptor.raw)"
  }

  private static func open(
    _ bytes: [UInt8], completes: Bool, model: [UInt8]?, _ look: (SnapshotChain) -> Void
  ) -> Bool {
    guard let file = try? file(bytes), let base else { return true }
    let chain: SnapshotChain
    do {
      // One that completes itself as well.
      chain = try SnapshotChain(path: path(file)) {
        $0.first == Draft.identifier(7).first ? path(base) : path(file)
      }
    } catch {
      return model == nil
    }
    let isSound = (try? chain.verify()) != nil
    guard chain.newest.memories.allSatisfy({ isWithin(chain, $0) }),
      chain.newest.memories.allSatisfy({ isSound == isSoundInParts(chain, $0) })
    else { return false }
    look(chain)
    guard let model else { return true }
    return isSound && contents(chain) == model
  }

  /// Whether parts of a memory are within it, once each, and within their files.
  private static func isWithin(_ chain: SnapshotChain, _ memory: SnapshotFile.Memory) -> Bool {
    guard let size = chain.newest.memory(memory.name)?.size,
      let parts = chain.parts(of: memory.name)
    else { return false }
    var seen = DirtyPages(pageCount: size / pageSize)
    for part in parts {
      let length = UInt64(part.pages.count * pageSize)
      guard let fileSize = try? part.file.descriptor.size(), part.offset <= fileSize,
        length <= fileSize - part.offset, part.pages.lowerBound >= 0, !part.pages.isEmpty,
        part.pages.upperBound <= size / pageSize,
        !part.pages.contains(where: { seen.contains(page: $0) })
      else { return false }
      for page in part.pages { seen.insert(page: page) }
    }
    return true
  }

  /// As when a machine goes on before all pages were checked.
  private static func isSoundInParts(
    _ chain: SnapshotChain, _ memory: SnapshotFile.Memory
  ) -> Bool {
    var some = DirtyPages(pageCount: memory.size / pageSize)
    for page in stride(from: 0, to: memory.size / pageSize, by: 3) { some.insert(page: page) }
    guard let unchecked = try? chain.verify(first: some, of: memory.name) else { return false }
    return (try? unchecked.verify()) != nil
  }

  /// A byte for each page, where all of a page's are alike.
  private static func contents(_ chain: SnapshotChain) -> [UInt8]? {
    var values = [UInt8](repeating: 0, count: pageCount)
    for part in chain.parts(of: memoryName) ?? [] {
      for (index, page) in part.pages.enumerated() {
        var bytes = [UInt8](repeating: 0, count: pageSize)
        let offset = part.offset + UInt64(index * pageSize)
        // SAFETY: the buffer is used only within the call.
        let count = bytes.withUnsafeMutableBytes {
          try? part.file.descriptor.read(into: $0, offset: offset)
        }
        guard count == pageSize, bytes.allSatisfy({ $0 == bytes[0] }) else { return nil }
        values[page] = bytes[0]
      }
    }
    return values
  }
}

extension SnapshotFuzzing {
  /// A snapshot's file before its sums, and so its directory, are made.
  private struct Draft {
    private var file = [UInt8](repeating: 0, count: pageSize)
    private var directory: SnapshotFormat.Directory
    private var isCompact: Bool

    static func identifier(_ number: UInt8) -> [UInt8] {
      [UInt8](repeating: number, count: 16)
    }

    init(completes: Bool, section: [UInt8]) {
      isCompact = completes
      directory = SnapshotFormat.Directory(
        identifier: Self.identifier(completes ? 8 : 7),
        base: completes ? Self.identifier(7) : nil, created: 1, sections: [], memories: [])
      add(completes ? changed : first)
      var devices = StateArchive()
      try? devices.store(section, as: "some")
      let archive = (try? devices.bytes()) ?? []
      for (name, bytes) in [
        ("machine", section), ("devices", archive), ("lived", LittleEndian.bytes(UInt64(5))),
      ] { directory.sections.append(.init(name: name, extent: append(bytes))) }
    }

    /// One memory with those pages.
    private mutating func add(_ pages: [Int: UInt8]) {
      var stored = DirtyPages(pageCount: pageCount)
      var zero = DirtyPages(pageCount: pageCount, allDirty: !isCompact)
      let start = file.count
      var (sums, places): ([UInt64], [UInt64]) = ([], [])
      for (page, value) in pages.sorted(by: { $0.key < $1.key }) {
        zero.remove(page: page)
        guard value != 0 else {
          zero.insert(page: page)
          continue
        }
        let bytes = [UInt8](repeating: value, count: pageSize)
        stored.insert(page: page)
        sums.append(SnapshotFormat.checksum(bytes))
        // What lies between is a hole, which this file has no room for: not so in the compact
        // form.
        let place = isCompact ? file.count : start + page * pageSize
        if file.count < place { file += [UInt8](repeating: 0, count: place - file.count) }
        places.append(UInt64(file.count / pageSize))
        file += bytes
      }
      directory.memories.append(
        .init(
          name: memoryName, size: UInt64(pageCount * pageSize), offset: UInt64(start),
          stored: append(words(stored.words)), zero: append(words(zero.words)),
          checksums: append(words(sums)), places: isCompact ? append(words(places)) : nil))
    }

    private func words(_ words: [UInt64]) -> [UInt8] { words.flatMap { LittleEndian.bytes($0) } }

    private mutating func append(_ bytes: [UInt8]) -> SnapshotFormat.Extent {
      let offset = (file.count + 63) & ~63
      file += [UInt8](repeating: 0, count: offset - file.count) + bytes
      return .init(
        offset: UInt64(offset), length: UInt64(bytes.count),
        checksum: SnapshotFormat.checksum(bytes))
    }

    /// Calls `body` with each extent that the directory has.
    private mutating func forEachExtent(_ body: (inout SnapshotFormat.Extent) -> Void) {
      for index in directory.sections.indices { body(&directory.sections[index].extent) }
      for index in directory.memories.indices {
        body(&directory.memories[index].stored)
        body(&directory.memories[index].zero)
        body(&directory.memories[index].checksums)
        if var places = directory.memories[index].places {
          body(&places)
          directory.memories[index].places = places
        }
      }
    }

    mutating func change(_ operation: UInt8, _ which: Int, _ value: UInt64, _ more: UInt8) {
      // Small, in pages, or at the far end.
      let number = [value, value * UInt64(pageSize), ~value, value << 32][Int(more & 3)]
      switch operation & 7 {
      case 0, 1:
        var count = 0
        forEachExtent { _ in count += 1 }
        let wanted = which % max(1, count)
        var index = 0
        forEachExtent { extent in
          defer { index += 1 }
          guard index == wanted else { return }
          if operation & 7 == 0 { extent.offset = number } else { extent.length = number }
        }
      case 2, 3:
        let extents = tables
        guard !extents.isEmpty else { return }
        let extent = extents[which % extents.count]
        let place = Int(clamping: extent.offset &+ value % max(1, extent.length))
        if place < file.count { file[place] = more }
      case 4:
        guard !directory.memories.isEmpty else { return }
        let index = which % directory.memories.count
        if operation & 8 == 0 {
          directory.memories[index].size = number
        } else {
          directory.memories[index].offset = number
        }
      case 5:
        guard let memory = directory.memories.first else { return }
        if operation & 8 == 0 {
          directory.memories[0].places = operation & 16 == 0 ? nil : memory.stored
        } else {
          directory.memories.append(memory)
          if operation & 16 != 0 { directory.memories[directory.memories.count - 1].name = "b" }
        }
      case 6:
        if operation & 8 == 0 {
          directory.base = Array(repeating: more, count: which % 18)
        } else {
          directory.identifier = Array(repeating: more, count: which % 18)
        }
      default:
        let place = Int(value) % file.count
        file[place] ^= more
      }
    }

    /// The extents of memories' tables.
    private var tables: [SnapshotFormat.Extent] {
      directory.memories.flatMap {
        [$0.stored, $0.zero, $0.checksums] + ($0.places.map { [$0] } ?? [])
      }
    }

    func finished(hasRightSums: Bool) -> [UInt8] {
      var draft = self
      if hasRightSums {
        let bytes = file
        draft.forEachExtent { extent in
          guard extent.offset <= UInt64(bytes.count),
            extent.length <= UInt64(bytes.count) - extent.offset
          else { return }
          let start = Int(extent.offset)
          extent.checksum = SnapshotFormat.checksum(
            Array(bytes[start..<start + Int(extent.length)]))
        }
      }
      guard let encoded = try? StateEncoder().encode(draft.directory) else { return [] }
      let extent = draft.append(encoded)
      let header = SnapshotFormat.header(
        of: extent, isCompact: draft.directory.memories.contains { $0.places != nil })
      draft.file.replaceSubrange(..<header.count, with: header)
      return draft.file
    }
  }
}
