import DeviceModel
import LinuxSystem
import Snapshot

/// A memory of a saved machine, in one piece of the host's memory that can never change, for
/// machines that each have a private view of it.
final class TemplateMemory: Sendable {
  /// Gaps between stored pages that are larger are mapped as memory of each machine's own:
  /// looking at a hole would fill it for good.
  private static let largestGap = 64
  /// More pieces would cost every machine more than holes do.
  private static let mostPieces = 128

  let size: Int
  /// Pages that may be other than zero.
  let stored: DirtyPages
  private let shared: SharedMemory
  /// In bytes.
  private let pieces: [Range<Int>]

  /// Copies what `chain`, which was verified, has of a memory.
  init(_ chain: SnapshotChain, _ name: String) throws {
    size = chain.newest.memory(name)?.size ?? 0
    let shared = try SharedMemory(name: "carrel-template-\(name)", size: size)
    var stored = DirtyPages(pageCount: size / DirtyPages.pageSize)
    try shared.map().withBytes { target in
      for part in chain.parts(of: name) ?? [] {
        let range =
          part.pages.lowerBound * DirtyPages.pageSize..<part.pages.upperBound * DirtyPages.pageSize
        // SAFETY: parts lie within the memory, which has the size of the snapshot's.
        _ = try part.file.descriptor.read(
          into: UnsafeMutableRawBufferPointer(rebasing: target[range]), offset: part.offset)
        stored.insert(bytes: range)
      }
    }
    try shared.sealContents()
    self.shared = shared
    self.stored = stored
    pieces = Self.pieces(of: stored)
  }

  private static func pieces(of stored: DirtyPages) -> [Range<Int>] {
    var runs: [Range<Int>] = []
    stored.forEachRun { runs.append($0) }
    var gap = largestGap
    while true {
      var merged: [Range<Int>] = []
      for run in runs {
        if let last = merged.last, run.lowerBound - last.upperBound <= gap {
          merged[merged.count - 1] = last.lowerBound..<run.upperBound
        } else {
          merged.append(run)
        }
      }
      if merged.count <= mostPieces {
        let page = DirtyPages.pageSize
        return merged.map { $0.lowerBound * page..<$0.upperBound * page }
      }
      gap *= 2
    }
  }

  /// Has `mapping`, of the same size and all zero, be a private view of this memory.
  ///
  /// - Returns: the pages that are stored.
  func map(into mapping: MemoryMapping) throws -> DirtyPages {
    guard mapping.bytes.count == size else {
      throw MachineError(
        .state, "the template is of a machine with another amount of memory",
        remedy: "configure the machine as it was")
    }
    for piece in pieces {
      try mapping.replace(piece, with: shared.descriptor, offset: UInt64(piece.lowerBound))
    }
    return stored
  }

  /// Writes what is stored to a memory that is all zero.
  func copy(to target: MappedMemory) throws(SystemError) {
    guard target.bytes.count == size else { return }
    let mapping = try shared.map(writable: false)
    try mapping.withBytes { (source) throws(SystemError) in
      try stored.forEachRun { (run) throws(SystemError) in
        let range = run.lowerBound * DirtyPages.pageSize..<run.upperBound * DirtyPages.pageSize
        // SAFETY: stored pages lie within the memory.
        let bytes = UnsafeRawBufferPointer(rebasing: source[range])
        // Cheaper than faults of the mapping.
        try target.shared.descriptor.write(bytes, offset: UInt64(range.lowerBound))
      }
    }
  }

  /// A sum over all of its bytes, to prove that they are what they were.
  package func checksum() throws(SystemError) -> UInt64 {
    try shared.map(writable: false).withBytes { bytes in
      SnapshotFile.checksum(UnsafeRawBufferPointer(bytes))
    }
  }
}
