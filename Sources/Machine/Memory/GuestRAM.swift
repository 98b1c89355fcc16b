import DeviceModel
import LinuxSystem
import Snapshot

/// The guest's RAM in this process: a memfd of its own, or a private view of a snapshot or a
/// template, whose pages are there when they are first looked at, and copied when they are
/// first written.
final class GuestRAM: SharedBytes {
  enum Source {
    case own(SharedMemory)
    /// Pages that a snapshot or template has.
    case stored(DirtyPages)
  }

  static let sectionName = "ram"

  let source: Source
  let mapping: MemoryMapping
  /// For whoever must not seem to be the guest; see `watchTouched`.
  var reader: MemoryMapping?
  /// Told which bytes are about to be lost. Owned by the device lock.
  var beforeRelease: ((Range<Int>) -> Void)?

  init(size: Int, stored: StoredMemory? = nil) throws {
    do {
      if let stored {
        mapping = try MemoryMapping(anonymous: size)
        switch stored {
        case .snapshot(let chain): source = .stored(try Self.fill(mapping, from: chain))
        case .template(let memory): source = .stored(try memory.map(into: mapping))
        }
      } else {
        let shared = try SharedMemory(name: "carrel-ram", size: size)
        mapping = try shared.map()
        source = .own(shared)
      }
    } catch let error as SystemError {
      throw MachineError(
        .host, "the host gave no \(size >> 20) MiB of memory for the guest; give it less",
        cause: error)
    }
  }

  var bytes: UnsafeMutableRawBufferPointer { mapping.bytes }

  /// How much of it the host holds at present.
  var hostBytes: UInt64 {
    switch source {
    case .own(let shared): return shared.descriptor.storedBytes
    case .stored:
      let pages = (try? mapping.copiedPages()).map { DirtyPages(words: $0).count } ?? 0
      return UInt64(pages * DirtyPages.pageSize)
    }
  }

  /// Something that stops whoever writes to protected pages, the guest included.
  func makeWriteProtection() throws(SystemError) -> WriteProtection {
    let isPrivate = if case .stored = source { true } else { false }
    return try WriteProtection(mapping, isPrivate: isPrivate)
  }

  /// Lets go of whole pages, whose contents the guest does not need.
  func release(_ range: Range<Int>) {
    beforeRelease?(range)
    switch source {
    // Where a host cannot, the range stays as it is, and nobody counts on its contents.
    case .own(let shared):
      _ = try? shared.descriptor.clear(
        .punchHole, offset: UInt64(range.lowerBound), count: UInt64(range.count))
    case .stored: try? mapping.discard(range)
    }
  }

  /// Pages that may be other than zero. Others were never touched, and looking at them
  /// would cost the host memory.
  func populated() throws(SystemError) -> DirtyPages {
    var pages = DirtyPages(pageCount: bytes.count / DirtyPages.pageSize)
    switch source {
    case .own(let shared):
      for range in try shared.descriptor.storedRanges() {
        pages.insert(bytes: Int(range.lowerBound)..<min(Int(range.upperBound), bytes.count))
      }
    case .stored(let stored):
      pages = stored
      pages.formUnion(DirtyPages(words: try mapping.presentPages()))
    }
    return pages
  }

  /// What it holds, for whoever saves it.
  var savedBytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer((reader ?? mapping).bytes)
  }

  /// Larger pieces are mapped; smaller ones are read, as a process may have some ten
  /// thousands of mappings only.
  private static let smallestMapped = 64
  private static let mostMapped = 16384

  private static func fill(
    _ mapping: MemoryMapping, from stored: SnapshotChain
  ) throws -> DirtyPages {
    let pageSize = DirtyPages.pageSize
    var pages = DirtyPages(pageCount: mapping.bytes.count / pageSize)
    guard stored.newest.memory(sectionName)?.size == mapping.bytes.count,
      let parts = stored.parts(of: sectionName)
    else {
      throw MachineError(
        .state, "the snapshot is of a machine with another amount of memory",
        remedy: "configure the machine as it was")
    }
    var mapped = 0
    for part in parts {
      let range = part.pages.lowerBound * pageSize..<part.pages.upperBound * pageSize
      if part.pages.count >= smallestMapped, mapped < mostMapped {
        try mapping.replace(range, with: part.file.descriptor, offset: part.offset)
        mapped += 1
      } else {
        // SAFETY: parts lie within the memory, whose size was compared.
        let target = UnsafeMutableRawBufferPointer(rebasing: mapping.bytes[range])
        _ = try part.file.descriptor.read(into: target, offset: part.offset)
      }
      pages.insert(bytes: range)
    }
    return pages
  }
}

/// Where RAM comes from that a saved machine had.
enum StoredMemory {
  case snapshot(SnapshotChain)
  case template(TemplateMemory)
}
