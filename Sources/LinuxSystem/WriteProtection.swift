import CLinux

/// Stops whoever writes to protected pages of a mapping, one by one, until these are allowed
/// again: threads of this process, system calls, and a guest through KVM (userfaultfd in
/// write-protect mode).
///
/// Somebody has to listen at `descriptor`, and may wait for nothing that a stopped writer
/// could hold. Pages are numbered from the mapping's start.
public final class WriteProtection: Sendable {
  /// Readable while there are stopped writers in `stoppedAt`.
  public let descriptor: FileDescriptor

  static let pageSize = 4096
  /// The memory map is locked for as long as it takes to forget about so many pages.
  private static let forgottenAtOnce = 2048

  private let mapping: MemoryMapping

  var pageCount: Int { mapping.bytes.count / Self.pageSize }

  /// - Parameter isPrivate: whether pages that were never looked at are of this process alone,
  ///   which wants Linux 6.4.
  /// - Throws: when the kernel does not give this process such a thing, or does not protect
  ///   memory of this kind: private mappings of files are none.
  public init(_ mapping: MemoryMapping, isPrivate: Bool) throws(SystemError) {
    descriptor = FileDescriptor(
      owning: try check(clinux_userfaultfd(isPrivate ? 1 : 0), "make a userfaultfd"))
    self.mapping = mapping
    try check(
      clinux_userfaultfd_watch(
        descriptor.raw, mapping.bytes.baseAddress, mapping.bytes.count),
      "watch memory for writes")
  }

  /// Has those who write to `pages` from now on be stopped.
  ///
  /// - Throws: none of them is protected then.
  public func protect(_ pages: Range<Int>) throws(SystemError) {
    let result = clinux_userfaultfd_protect(descriptor.raw, start(pages), length(pages), 1)
    guard result < 0 else { return }
    // It may have come part of the way.
    allow(pages)
    try check(result, "protect memory from writes")
  }

  /// Lets everybody write to `pages`, and those go on who were stopped.
  public func allow(_ pages: Range<Int>) {
    guard clinux_userfaultfd_protect(descriptor.raw, start(pages), length(pages), 0) < 0 else {
      return
    }
    // Not to be watched at all is another way to be allowed.
    _ = clinux_userfaultfd_forget(descriptor.raw, start(pages), length(pages))
  }

  /// Pages at which writers were stopped since the last call; others may be left where
  /// `descriptor` is still readable.
  public func stoppedAt() -> [Int] {
    var addresses = [UInt64](repeating: 0, count: 32)
    let count = clinux_userfaultfd_stopped(descriptor.raw, &addresses, Int32(addresses.count))
    let base = UInt64(UInt(bitPattern: mapping.bytes.baseAddress))
    return addresses.prefix(max(0, Int(count))).compactMap { address in
      guard address >= base, address - base < UInt64(mapping.bytes.count) else { return nil }
      return Int(address - base) / Self.pageSize
    }
  }

  /// Gives the memory back as it was. Somebody has to listen until this returns.
  public func end() {
    for first in stride(from: 0, to: pageCount, by: Self.forgottenAtOnce) {
      let pages = first..<min(first + Self.forgottenAtOnce, pageCount)
      _ = clinux_userfaultfd_forget(descriptor.raw, start(pages), length(pages))
    }
  }

  private func start(_ pages: Range<Int>) -> UnsafeMutableRawPointer? {
    precondition(pages.lowerBound >= 0 && pages.upperBound <= pageCount)
    // SAFETY: the pages were checked to lie in the mapping, which this object keeps.
    return mapping.bytes.baseAddress.map { $0 + pages.lowerBound * Self.pageSize }
  }

  private func length(_ pages: Range<Int>) -> Int { pages.count * Self.pageSize }
}
