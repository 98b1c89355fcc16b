import CLinux

/// Stops the first writer to a range of shared memory, whoever it is, and tells of it:
/// a thread of this process, a system call, or a guest through KVM (userfaultfd in
/// write-protect mode, which wants Linux 5.19).
///
/// A stopped writer goes on at `disarm`, or when this object goes. Whoever waits for
/// `descriptor` must therefore not wait, while armed, for anything a writer may hold.
public final class WriteWatch: Sendable {
  /// Readable when a writer was stopped.
  public let descriptor: FileDescriptor

  private let mapping: MemoryMapping
  private let armed = Guarded<Range<Int>?>(nil)

  /// - Throws: when the kernel has no such watch or does not give this process one.
  public init(_ mapping: MemoryMapping) throws(SystemError) {
    descriptor = FileDescriptor(owning: try check(clinux_userfaultfd(0), "make a userfaultfd"))
    self.mapping = mapping
    try check(
      clinux_userfaultfd_watch(
        descriptor.raw, mapping.bytes.baseAddress, mapping.bytes.count),
      "watch memory for writes")
  }

  /// Watches the pages that hold `range`, given in bytes from the mapping's start, in
  /// place of what was watched before.
  public func arm(_ range: Range<Int>) throws(SystemError) {
    let range = range.clamped(to: 0..<mapping.bytes.count)
    let pages = range.lowerBound & ~4095..<(range.upperBound + 4095) & ~4095
    disarm()
    guard !pages.isEmpty else { return }
    try armed.withLock { armed throws(SystemError) in
      let result = protect(pages, true)
      // It may have come part of the way.
      if result < 0 { _ = protect(pages, false) }
      try check(result, "protect memory from writes")
      armed = pages
    }
  }

  /// Lets everybody write again; returns whether somebody had tried.
  @discardableResult
  public func disarm() -> Bool {
    armed.withLock { armed in
      guard let pages = armed else { return false }
      armed = nil
      let reports = clinux_userfaultfd_drain(descriptor.raw)
      _ = protect(pages, false)
      return reports > 0
    }
  }

  private func protect(_ pages: Range<Int>, _ on: Bool) -> Int32 {
    // SAFETY: `pages` was clamped to the mapping, which this object keeps.
    let start = mapping.bytes.baseAddress.map { $0 + pages.lowerBound }
    return clinux_userfaultfd_protect(descriptor.raw, start, pages.count, on ? 1 : 0)
  }
}
