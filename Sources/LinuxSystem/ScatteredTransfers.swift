import Glibc

/// Reading and writing memory in pieces (preadv(2)).
extension FileDescriptor {
  /// IOV_MAX of Linux.
  private static let mostPieces = 1024

  /// Fills the pieces one after another from `offset` on; returns less than their size only
  /// at the end.
  public func read(
    into pieces: [UnsafeMutableRawBufferPointer], offset: UInt64
  ) throws(SystemError) -> Int {
    if pieces.count == 1 { return try read(into: pieces[0], offset: offset) }
    let vectors = pieces.map { iovec(iov_base: $0.baseAddress, iov_len: $0.count) }
    return try transfer(vectors, offset, "read", preadv)
  }

  /// Writes all of `pieces`, one behind the other, from `offset` on.
  public func write(_ pieces: [UnsafeRawBufferPointer], offset: UInt64) throws(SystemError) {
    if pieces.count == 1 { return try write(pieces[0], offset: offset) }
    let vectors = pieces.map {
      iovec(iov_base: UnsafeMutableRawPointer(mutating: $0.baseAddress), iov_len: $0.count)
    }
    let total = vectors.reduce(0) { $0 + $1.iov_len }
    guard try transfer(vectors, offset, "write", pwritev) == total else {
      throw SystemError(code: ENOSPC, "write at \(offset)")
    }
  }

  /// - Returns: how much was moved before the end.
  private func transfer(
    _ vectors: [iovec], _ offset: UInt64, _ what: String,
    _ call: (Int32, UnsafePointer<iovec>?, Int32, off_t) -> Int
  ) throws(SystemError) -> Int {
    var rest = vectors[...]
    var done = 0
    while let first = rest.first {
      guard first.iov_len > 0 else {
        rest.removeFirst()
        continue
      }
      // SAFETY: the kernel is given as many pieces as there are, of memory that the caller
      // keeps.
      let moved = rest.prefix(Self.mostPieces).withUnsafeBufferPointer { buffer in
        retrying {
          call(
            raw, buffer.baseAddress, Int32(buffer.count), off_t(clamping: offset) + off_t(done))
        }
      }
      guard moved >= 0 else { throw SystemError(code: errno, "\(what) at \(offset)") }
      if moved == 0 { break }
      done += moved
      rest.dropBytes(moved)
    }
    return done
  }
}

extension ArraySlice<iovec> {
  /// Takes what was moved off the front.
  fileprivate mutating func dropBytes(_ count: Int) {
    var left = count
    while left > 0, let first = self.first {
      guard first.iov_len > left else {
        left -= first.iov_len
        removeFirst()
        continue
      }
      self[startIndex] = iovec(
        iov_base: first.iov_base?.advanced(by: left), iov_len: first.iov_len - left)
      return
    }
  }
}

extension UnsafeRawBufferPointer {
  /// Whether all bytes are 0.
  public var isZero: Bool {
    var place = 0
    while place + 64 <= count {
      let block = loadUnaligned(fromByteOffset: place, as: SIMD8<UInt64>.self)
      if block != .zero { return false }
      place += 64
    }
    return self[place...].allSatisfy { $0 == 0 }
  }
}
