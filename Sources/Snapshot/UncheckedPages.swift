import DeviceModel

/// Pages of a chain of snapshots that were not compared with their checksums yet.
public struct UncheckedPages: Sendable {
  fileprivate var parts: [(file: SnapshotFile, memory: SnapshotFile.Memory, pages: DirtyPages)] = []

  /// Bytes of them.
  public var byteCount: UInt64 {
    parts.reduce(0) { $0 + UInt64($1.pages.count * SnapshotFormat.pageSize) }
  }

  /// Checks them, in the files' order.
  ///
  /// - Parameter isWanted: asked now and then; `false` ends it.
  public func verify(while isWanted: () -> Bool = { true }) throws(SnapshotError) {
    for part in parts {
      guard try part.file.verify(part.memory, part.pages, while: { _ in isWanted() }) else {
        return
      }
    }
  }
}

extension SnapshotChain {
  /// Checks what a machine needs before it runs: all memories but `name`, and the pages of that
  /// one which are in `first`. They are in the page cache then.
  ///
  /// - Returns: what is left to be checked.
  public func verify(
    first: DirtyPages, of name: String
  ) throws(SnapshotError) -> UncheckedPages {
    var unchecked = UncheckedPages()
    var wanted = first
    for file in files {
      for memory in file.memories {
        guard memory.name == name else {
          _ = try file.verify(memory, memory.stored)
          continue
        }
        var (now, later) = (memory.stored, memory.stored)
        now.formIntersection(wanted)
        later.subtract(now)
        // All of it is on its way before the first of it is waited for.
        memory.forEachPiece(of: now) { run, offset in
          file.descriptor.willRead(offset: offset, count: run.count * SnapshotFormat.pageSize)
        }
        _ = try file.verify(memory, now)
        wanted.subtract(memory.stored)
        wanted.subtract(memory.zero)
        unchecked.parts.append((file, memory, later))
      }
    }
    return unchecked
  }
}
