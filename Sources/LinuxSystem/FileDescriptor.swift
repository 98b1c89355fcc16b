import CLinux
import Glibc

/// An open file descriptor and its owner: closed when the last reference goes.
public final class FileDescriptor: Sendable {
  public let raw: Int32

  /// Takes ownership of `raw`.
  public init(owning raw: Int32) {
    self.raw = raw
  }

  deinit {
    close(raw)
  }

  /// How `open` may use a file.
  public struct Options: OptionSet, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    public static let writable = Options(rawValue: O_RDWR)
    public static let writeOnly = Options(rawValue: O_WRONLY)
    public static let create = Options(rawValue: O_CREAT)
    public static let exclusive = Options(rawValue: O_CREAT | O_EXCL)
    public static let truncate = Options(rawValue: O_TRUNC)
    public static let append = Options(rawValue: O_APPEND)
    public static let nonBlocking = Options(rawValue: O_NONBLOCK)
    public static let directory = Options(rawValue: O_DIRECTORY)
    public static let noTerminal = Options(rawValue: O_NOCTTY)
  }

  /// Opens `path`, close-on-exec.
  public static func open(_ path: String, _ options: Options = [], permissions: UInt32 = 0o600)
    throws(SystemError) -> FileDescriptor
  {
    FileDescriptor(
      owning: try check(clinux_open(path, options.rawValue, permissions), "open \(path)"))
  }

  /// A second descriptor for the same open file.
  public func duplicate() throws(SystemError) -> FileDescriptor {
    FileDescriptor(owning: try check(clinux_duplicate(raw), "duplicate a descriptor"))
  }

  /// A descriptor of its own for this process's standard input (0), output (1) or
  /// error (2).
  public static func standard(_ number: Int32) throws(SystemError) -> FileDescriptor {
    FileDescriptor(
      owning: try check(clinux_duplicate(number), "duplicate standard descriptor \(number)"))
  }

  public func setNonBlocking(_ on: Bool) throws(SystemError) {
    try check(clinux_set_nonblocking(raw, on ? 1 : 0), "set a descriptor's blocking mode")
  }

  /// The size of a regular file or block device in bytes.
  public func size() throws(SystemError) -> UInt64 {
    let end = lseek(raw, 0, SEEK_END)
    guard end >= 0 else { throw SystemError(code: errno, "find the size of a file") }
    return UInt64(end)
  }

  /// Whether it is a plain file: not a pipe, a device, a directory or a socket.
  public var isRegularFile: Bool {
    // SAFETY: stat is a plain C structure that fstat fills.
    var status = stat()
    return fstat(raw, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
  }

  /// Bytes of storage, or of memory, that a file has at present; holes have none.
  public var storedBytes: UInt64 {
    // SAFETY: stat is a plain C structure that fstat fills.
    var status = stat()
    return fstat(raw, &status) == 0 ? UInt64(clamping: status.st_blocks) * 512 : 0
  }

  public func setSize(_ size: UInt64) throws(SystemError) {
    try check(
      clinux_ftruncate(raw, Int64(clamping: size)), "set the size of a file to \(size) bytes")
  }

  /// Reads up to `capacity` bytes; empty at the end.
  public func read(upTo capacity: Int) throws(SystemError) -> [UInt8] {
    var failure: Int32 = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
      // SAFETY: the kernel writes at most `capacity` bytes into the buffer given.
      let got = retrying { Glibc.read(raw, buffer.baseAddress, capacity) }
      if got < 0 { failure = errno }
      count = max(0, got)
    }
    guard failure == 0 else { throw SystemError(code: failure, "read") }
    return bytes
  }

  /// Writes what the descriptor takes now; returns how much.
  @discardableResult
  public func write(_ bytes: some Collection<UInt8>) throws(SystemError) -> Int {
    let array = Array(bytes)
    // SAFETY: the array outlives the call and gives its own length.
    let count = array.withUnsafeBytes { buffer in
      retrying { Glibc.write(raw, buffer.baseAddress, buffer.count) }
    }
    guard count >= 0 else { throw SystemError(code: errno, "write") }
    return count
  }

  /// Writes everything, blocking.
  public func writeAll(_ bytes: some Collection<UInt8>) throws(SystemError) {
    var rest = ArraySlice(Array(bytes))
    while !rest.isEmpty {
      rest = rest.dropFirst(try write(rest))
    }
  }

  /// Fills `buffer` from `offset`; returns less than its size only at the end.
  public func read(into buffer: UnsafeMutableRawBufferPointer, offset: UInt64)
    throws(SystemError) -> Int
  {
    var done = 0
    while done < buffer.count {
      // SAFETY: `done` stays below the buffer's count, which bounds the read.
      let count = retrying {
        pread(
          raw, buffer.baseAddress?.advanced(by: done), buffer.count - done,
          off_t(clamping: offset) + off_t(done))
      }
      guard count >= 0 else { throw SystemError(code: errno, "read at \(offset)") }
      if count == 0 { break }
      done += count
    }
    return done
  }

  /// Fills `buffer` from `offset` when that takes no waiting for storage; `false` when it
  /// does, or cannot be known, and `buffer` has any contents.
  public func readNow(into buffer: UnsafeMutableRawBufferPointer, offset: UInt64) -> Bool {
    clinux_read_now(raw, buffer.baseAddress, buffer.count, Int64(clamping: offset))
      == buffer.count
  }

  /// Writes all of `buffer` at `offset`.
  public func write(_ buffer: UnsafeRawBufferPointer, offset: UInt64) throws(SystemError) {
    var done = 0
    while done < buffer.count {
      // SAFETY: `done` stays below the buffer's count, which bounds the write.
      let count = retrying {
        pwrite(
          raw, buffer.baseAddress?.advanced(by: done), buffer.count - done,
          off_t(clamping: offset) + off_t(done))
      }
      guard count >= 0 else { throw SystemError(code: errno, "write at \(offset)") }
      done += count
    }
  }

  /// Makes the empty file `target` a copy of this one's first `size` bytes, without
  /// its holes and sharing storage where the file system can. `progress` is told how
  /// many bytes are done, now and then and at the end, and may throw to give it up.
  public func copySparse(
    to target: FileDescriptor, size: UInt64,
    progress: (UInt64) throws(SystemError) -> Void = { _ in }
  ) throws(SystemError) {
    try target.setSize(size)
    var done: UInt64 = 0
    while done < size {
      let limit = min(size, done + Self.copyPortion)
      try check(
        clinux_copy_sparse(raw, target.raw, Int64(clamping: done), Int64(clamping: limit)),
        "copy a file")
      done = limit
      try progress(done)
    }
  }

  /// The parts of a file, or of shared memory, that are not holes.
  public func storedRanges() throws(SystemError) -> [Range<UInt64>] {
    var ranges: [Range<UInt64>] = []
    var place: Int64 = 0
    while true {
      let start = clinux_seek_data(raw, place)
      if start == -Int64(ENXIO) { return ranges }
      try check(Int32(clamping: min(start, 0)), "look for a file's holes")
      let end = clinux_seek_hole(raw, start)
      try check(Int32(clamping: min(end, 0)), "look for a file's holes")
      ranges.append(UInt64(start)..<UInt64(max(start, end)))
      place = end
    }
  }

  private static let copyPortion: UInt64 = 32 << 20

  /// Has the kernel read a range ahead, without waiting for it.
  public func willRead(offset: UInt64, count: Int) {
    // Advice, which may be ignored.
    _ = posix_fadvise(raw, off_t(clamping: offset), off_t(count), POSIX_FADV_WILLNEED)
  }

  /// Forces data (and the size) to the medium.
  public func synchronize() throws(SystemError) {
    guard fdatasync(raw) == 0 else { throw SystemError(code: errno, "flush to the medium") }
  }

  /// Takes a lock on the open file for as long as it lives, without waiting.
  ///
  /// - Throws: kind `wouldBlock` when another open file holds a conflicting lock.
  public func lock(exclusive: Bool) throws(SystemError) {
    try check(clinux_ofd_lock(raw, exclusive ? 1 : 0), "lock a file")
  }

  public func unlock() throws(SystemError) {
    try check(clinux_ofd_unlock(raw), "unlock a file")
  }
}

/// A pipe between two processes, or two threads.
public struct Pipe: Sendable {
  public let output: FileDescriptor
  public let input: FileDescriptor

  public init() throws(SystemError) {
    var ends: [Int32] = [-1, -1]
    // SAFETY: the kernel fills both elements of the array or fails.
    try check(clinux_pipe(&ends), "make a pipe")
    output = FileDescriptor(owning: ends[0])
    input = FileDescriptor(owning: ends[1])
  }
}

/// Repeats a call that a signal interrupted.
func retrying(_ call: () -> Int) -> Int {
  while true {
    let result = call()
    if result >= 0 || errno != EINTR { return result }
  }
}
