import DeviceModel
import KVM
import LinuxSystem

/// Which pages of RAM changed since which snapshot.
struct MemoryChanges {
  /// The snapshot; `nil` before the first.
  var base: MachineUUID?
  /// What changed between it and the last look.
  var pages: DirtyPages
  /// What of that came after the instant of the snapshot that is being made.
  var afterInstant: DirtyPages?
}

extension Board {
  /// What a new snapshot has to copy: what changed since `base`, if the last one was that,
  /// or all that may be other than zero.
  func beginSnapshot(on base: MachineUUID?) throws -> (base: MachineUUID?, pages: DirtyPages) {
    let pageCount = memory.ram.bytes.count / DirtyPages.pageSize
    if changes == nil {
      try memory.trackWrites()
      changes = MemoryChanges(pages: DirtyPages(pageCount: pageCount))
    }
    changes?.afterInstant = nil
    _ = try takeChanges()
    if let base, let changes, changes.base == base { return (base, changes.pages) }
    return (nil, try memory.ram.populated())
  }

  /// Pages that changed since the last look.
  func takeChanges() throws -> DirtyPages {
    var pages = DirtyPages(pageCount: memory.ram.bytes.count / DirtyPages.pageSize)
    try memory.takeWritten(into: &pages)
    changes?.pages.formUnion(pages)
    changes?.afterInstant?.formUnion(pages)
    return pages
  }

  /// What is written from now on is not in the snapshot that is being made.
  func markInstant() {
    changes?.afterInstant = DirtyPages(
      pageCount: memory.ram.bytes.count / DirtyPages.pageSize)
  }

  /// The snapshot is whole: from now on, changes are counted from its instant.
  func endSnapshot(_ identifier: MachineUUID) {
    guard let after = changes?.afterInstant else { return }
    changes = MemoryChanges(base: identifier, pages: after)
  }
}
