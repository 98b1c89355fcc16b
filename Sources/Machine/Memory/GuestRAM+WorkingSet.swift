import DeviceModel
import LinuxSystem

/// Which pages a guest needs, as far as page tables tell.
extension GuestRAM {
  /// Pages of the snapshot that were touched since the machine went on from it; `nil` for a
  /// machine that did not.
  func touchedOfSnapshot() throws(SystemError) -> DirtyPages? {
    guard case .stored(let stored) = source else { return nil }
    var pages = withoutSurroundings(
      DirtyPages(words: try mapping.presentPages()),
      written: DirtyPages(words: try mapping.copiedPages()))
    pages.formIntersection(stored)
    return pages
  }

  /// Has `touchedOfOwn` tell of what is touched from now on. Whoever saves the memory reads it
  /// elsewhere from now on.
  func watchTouched() throws(SystemError) {
    guard case .own(let shared) = source else { return }
    if reader == nil { reader = try shared.map(writable: false) }
    try mapping.forgetTouched()
  }

  /// What was touched since `watchTouched`; `nil` where that is not known.
  ///
  /// - Parameter written: pages that were written since then.
  func touchedOfOwn(written: DirtyPages) throws(SystemError) -> DirtyPages? {
    guard case .own = source, reader != nil else { return nil }
    return withoutSurroundings(
      DirtyPages(words: try mapping.presentPages()), written: written)
  }

  /// A page that is read brings those around it in memory along, of 64 KiB (the kernel's
  /// `fault_around_bytes`). Where one of them was written, that may have been the reason for all.
  private func withoutSurroundings(_ present: DirtyPages, written: DirtyPages) -> DirtyPages {
    let around = 16
    var pages = DirtyPages(pageCount: bytes.count / DirtyPages.pageSize)
    let first = Int(UInt(bitPattern: bytes.baseAddress) / UInt(DirtyPages.pageSize)) % around
    for start in stride(from: -first, to: bytes.count / DirtyPages.pageSize, by: around) {
      let window = max(0, start)..<start + around
      let isWritten = window.contains(where: written.contains(page:))
      for page in window where (isWritten ? written : present).contains(page: page) {
        pages.insert(page: page)
      }
    }
    return pages
  }

  /// Has pages of the snapshot found without faults.
  ///
  /// - Parameter written: pages that are copied, too, as they will be written.
  func populate(_ pages: DirtyPages, written: DirtyPages? = nil) {
    guard case .stored(let stored) = source else { return }
    var pages = pages
    pages.formIntersection(stored)
    // They are found later where the kernel cannot.
    try? mapping.populate(Self.bytes(of: pages))
    if let written { try? mapping.populate(Self.bytes(of: written), writable: true) }
  }

  private static func bytes(of pages: DirtyPages) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    pages.forEachRun { run in
      ranges.append(run.lowerBound * DirtyPages.pageSize..<run.upperBound * DirtyPages.pageSize)
    }
    return ranges
  }

  /// Pages that were written since the machine went on from a snapshot.
  func writtenOfSnapshot() throws(SystemError) -> DirtyPages? {
    guard case .stored = source else { return nil }
    return DirtyPages(words: try mapping.copiedPages())
  }
}
