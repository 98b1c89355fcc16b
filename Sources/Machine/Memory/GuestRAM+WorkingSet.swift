import DeviceModel
import LinuxSystem

/// Which pages a guest needs, as far as page tables tell. The kernel maps what lies around a
/// touched page, if that is in memory, so that there are some pages more.
extension GuestRAM {
  /// Pages of the snapshot that were touched since the machine went on from it; `nil` for a
  /// machine that did not.
  func touchedOfSnapshot() throws(SystemError) -> DirtyPages? {
    guard case .stored(let stored) = source else { return nil }
    var pages = DirtyPages(words: try mapping.presentPages())
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
  func touchedOfOwn() throws(SystemError) -> DirtyPages? {
    guard case .own = source, reader != nil else { return nil }
    return DirtyPages(words: try mapping.presentPages())
  }

  /// Has pages of the snapshot found without faults.
  func populate(_ pages: DirtyPages) {
    guard case .stored(let stored) = source else { return }
    var pages = pages
    pages.formIntersection(stored)
    pages.forEachRun { run in
      // They are found later where the kernel cannot.
      try? mapping.populate(
        run.lowerBound * DirtyPages.pageSize..<run.upperBound * DirtyPages.pageSize)
    }
  }
}
