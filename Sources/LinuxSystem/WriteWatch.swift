import CLinux

/// Stops the first writer to a range of shared memory, whoever it is, and tells of it:
/// a thread of this process, a system call, or a guest through KVM (userfaultfd in
/// write-protect mode, which wants Linux 5.19).
///
/// A stopped writer goes on at `disarm`, or when this object goes. Whoever waits for
/// `descriptor` must therefore not wait, while armed, for anything a writer may hold.
public final class WriteWatch: Sendable {
  /// Readable when a writer was stopped.
  public var descriptor: FileDescriptor { protection.descriptor }

  private let protection: WriteProtection
  private let armed = Guarded<Range<Int>?>(nil)

  /// - Throws: when the kernel has no such watch or does not give this process one.
  public init(_ mapping: MemoryMapping) throws(SystemError) {
    protection = try WriteProtection(mapping, isPrivate: false)
  }

  /// Watches the pages that hold `range`, given in bytes from the mapping's start, in
  /// place of what was watched before.
  public func arm(_ range: Range<Int>) throws(SystemError) {
    let size = WriteProtection.pageSize
    let range = range.clamped(to: 0..<protection.pageCount * size)
    let pages = range.lowerBound / size..<(range.upperBound + size - 1) / size
    disarm()
    guard !pages.isEmpty else { return }
    try armed.withLock { armed throws(SystemError) in
      try protection.protect(pages)
      armed = pages
    }
  }

  /// Lets everybody write again; returns whether somebody had tried.
  @discardableResult
  public func disarm() -> Bool {
    armed.withLock { armed in
      guard let pages = armed else { return false }
      armed = nil
      var wasTried = false
      while !protection.stoppedAt().isEmpty { wasTried = true }
      protection.allow(pages)
      return wasTried
    }
  }
}
