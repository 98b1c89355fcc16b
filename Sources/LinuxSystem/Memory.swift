import CLinux
import Glibc

/// Memory that other processes can map, by descriptor (memfd).
public struct SharedMemory: Sendable {
  public let descriptor: FileDescriptor
  public let size: Int

  /// New zeroed memory whose size can never change.
  ///
  /// - Parameter name: shown in /proc/PID/maps.
  public init(name: String, size: Int) throws(SystemError) {
    let descriptor = FileDescriptor(
      owning: try check(clinux_memfd_create(name, 1), "make shared memory \(name)"))
    try check(
      clinux_ftruncate(descriptor.raw, Int64(size)), "size shared memory \(name) to \(size) bytes")
    try check(clinux_memfd_seal_size(descriptor.raw), "seal shared memory \(name)")
    self.descriptor = descriptor
    self.size = size
  }

  /// What it holds can never change from now on. No mapping that writes to it may exist.
  public func sealContents() throws(SystemError) {
    try check(clinux_memfd_seal_contents(descriptor.raw), "seal shared memory")
  }

  /// Whether memory that somebody sent keeps its size, so that no access to a mapping
  /// of it can ever raise SIGBUS.
  public static func keepsSize(_ descriptor: FileDescriptor) -> Bool {
    clinux_memfd_cannot_shrink(descriptor.raw) == 1
  }

  /// Maps all of it.
  public func map(writable: Bool = true) throws(SystemError) -> MemoryMapping {
    try MemoryMapping(descriptor, offset: 0, size: size, access: writable ? .shared : .readOnly)
  }
}

/// A range of this process's address space, unmapped when the last reference goes.
public final class MemoryMapping {
  public enum Access: Sendable {
    case readOnly
    /// Writes are seen by everyone who maps the file.
    case shared
    /// Writes are copied and stay here.
    case privateCopy
  }

  /// Valid for as long as this object lives; whoever has no other reference to it
  /// uses `withBytes`.
  public let bytes: UnsafeMutableRawBufferPointer

  /// Maps `size` bytes of `descriptor` from `offset` (a multiple of the page size).
  public init(_ descriptor: FileDescriptor, offset: UInt64, size: Int, access: Access)
    throws(SystemError)
  {
    let protection = access == .readOnly ? PROT_READ : PROT_READ | PROT_WRITE
    let flags = access == .privateCopy ? MAP_PRIVATE : MAP_SHARED
    bytes = try Self.map(size, protection, flags, descriptor.raw, off_t(clamping: offset))
  }

  /// Maps zeroed private memory.
  public init(anonymous size: Int) throws(SystemError) {
    bytes = try Self.map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
  }

  /// Overwrites the start of the mapping. The source must be kept mapped by the caller.
  public func copy(from source: UnsafeRawBufferPointer) {
    withBytes { $0.copyMemory(from: source) }
  }

  /// Lets `body` at the bytes while the mapping surely exists.
  public func withBytes<Result, Failure: Error>(
    _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try withExtendedLifetime(self) { () throws(Failure) in try body(bytes) }
  }

  /// Has a part of the mapping, in whole pages, be a private copy of a file's bytes, which
  /// are read when they are first looked at. The file's part must not change from then on.
  public func replace(
    _ range: Range<Int>, with descriptor: FileDescriptor, offset: UInt64
  ) throws(SystemError) {
    precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
    // SAFETY: the range lies in this mapping, whose pages are replaced at once.
    let address = mmap(
      bytes.baseAddress.map { $0 + range.lowerBound }, range.count, PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, descriptor.raw, off_t(clamping: offset))
    guard address != MAP_FAILED else {
      throw SystemError(code: errno, "map \(range.count) bytes of a file")
    }
  }

  /// Lets go of private pages: what was written to them is lost, and they read as what the
  /// mapping is of. Whole pages.
  public func discard(_ range: Range<Int>) throws(SystemError) {
    precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
    let start = bytes.baseAddress.map { $0 + range.lowerBound }
    guard madvise(start, range.count, MADV_DONTNEED) == 0 else {
      throw SystemError(code: errno, "let go of \(range.count) bytes of memory")
    }
  }

  /// Forgets which pages of shared memory were touched through this mapping. What is in them
  /// stays.
  public func forgetTouched() throws(SystemError) {
    try discard(0..<bytes.count)
  }

  /// Has pages that are in memory found without faults from now on, and others read: in one
  /// system call where the kernel has that (Linux 6.15), else in one for each range.
  ///
  /// - Parameters:
  ///   - ranges: whole pages.
  ///   - writable: without faults of writes, too: of a private mapping they are copies
  ///     afterwards.
  public func populate(_ ranges: [Range<Int>], writable: Bool = false) throws(SystemError) {
    guard let base = bytes.baseAddress else { return }
    let advice: Int32 = writable ? 23 : 22  // MADV_POPULATE_WRITE and MADV_POPULATE_READ
    let vectors = ranges.map { range in
      precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
      return iovec(iov_base: base + range.lowerBound, iov_len: range.count)
    }
    let mostAtOnce = 1024  // IOV_MAX
    for start in stride(from: 0, to: vectors.count, by: mostAtOnce) {
      let batch = Array(vectors[start..<min(start + mostAtOnce, vectors.count)])
      let wanted = batch.reduce(0) { $0 + $1.iov_len }
      guard clinux_advise(batch, batch.count, advice) != wanted else { continue }
      for vector in batch where madvise(vector.iov_base, vector.iov_len, advice) != 0 {
        throw SystemError(code: errno, "populate \(vector.iov_len) bytes of memory")
      }
    }
  }

  /// Pages that are in memory, or in swap space: one bit each (Linux's
  /// admin-guide/mm/pagemap).
  public func presentPages() throws(SystemError) -> [UInt64] {
    try pages { $0 >> 62 != 0 }
  }

  /// Pages of a private mapping of a file that are copies by now: those that were written.
  public func copiedPages() throws(SystemError) -> [UInt64] {
    try pages { $0 >> 62 != 0 && $0 >> 61 & 1 == 0 }
  }

  /// Pages whose entry in pagemap is as wanted.
  private func pages(where isWanted: (UInt64) -> Bool) throws(SystemError) -> [UInt64] {
    let pageSize = 4096
    let pages = bytes.count / pageSize
    let file = try FileDescriptor.open("/proc/self/pagemap")
    let first = UInt64(UInt(bitPattern: bytes.baseAddress)) / UInt64(pageSize)
    var words = [UInt64](repeating: 0, count: (pages + 63) / 64)
    var entries = [UInt64](repeating: 0, count: 1 << 16)
    for start in stride(from: 0, to: pages, by: entries.count) {
      let count = min(entries.count, pages - start)
      var failure: SystemError?
      // SAFETY: the buffer is used only within the call.
      entries.withUnsafeMutableBytes { buffer in
        do throws(SystemError) {
          let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<(count * 8)])
          _ = try file.read(into: part, offset: (first + UInt64(start)) * 8)
        } catch {
          failure = error
        }
      }
      if let failure { throw failure }
      for index in 0..<count where isWanted(entries[index]) {
        words[(start + index) / 64] |= 1 << UInt64((start + index) % 64)
      }
    }
    return words
  }

  deinit {
    munmap(bytes.baseAddress, bytes.count)
  }

  private static func map(
    _ size: Int, _ protection: Int32, _ flags: Int32, _ descriptor: Int32, _ offset: off_t
  ) throws(SystemError) -> UnsafeMutableRawBufferPointer {
    // SAFETY: the kernel chooses the address; the result is checked before use.
    let address = mmap(nil, size, protection, flags | MAP_NORESERVE, descriptor, offset)
    guard let address, address != MAP_FAILED else {
      throw SystemError(code: errno, "map \(size) bytes of memory")
    }
    // SAFETY: mmap returned `size` bytes at `address`.
    return UnsafeMutableRawBufferPointer(start: address, count: size)
  }
}

// SAFETY: the mapping itself never changes; who may touch which bytes when is the
// concern of those who share it, in this process as between processes.
extension MemoryMapping: @unchecked Sendable {}
