/// The memory that a request's bytes go to, in pieces.
extension [UnsafeMutableRawBufferPointer] {
  var byteCount: Int { reduce(0) { $0 + $1.count } }

  /// `count` bytes from `start` on, both within.
  func part(_ start: Int, _ count: Int) -> Self {
    if self.count == 1 { return [.init(rebasing: self[0][start..<start + count])] }
    var (parts, skip, left): (Self, Int, Int) = ([], start, count)
    for piece in self where left > 0 {
      guard skip < piece.count else {
        skip -= piece.count
        continue
      }
      let length = Swift.min(left, piece.count - skip)
      parts.append(.init(rebasing: piece[skip..<skip + length]))
      (skip, left) = (0, left - length)
    }
    return parts
  }

  func clear() {
    for piece in self { piece.initializeMemory(as: UInt8.self, repeating: 0) }
  }

  /// As much of `source` as fits.
  func copy(from source: UnsafeRawBufferPointer) {
    var rest = source[...]
    for piece in self {
      let count = Swift.min(piece.count, rest.count)
      piece.copyMemory(from: .init(rebasing: rest.prefix(count)))
      rest = rest.dropFirst(count)
    }
  }
}

/// The memory that a request's bytes come from, in pieces.
extension [UnsafeRawBufferPointer] {
  var byteCount: Int { reduce(0) { $0 + $1.count } }

  /// `count` bytes from `start` on, both within.
  func part(_ start: Int, _ count: Int) -> Self {
    if self.count == 1 { return [.init(rebasing: self[0][start..<start + count])] }
    var (parts, skip, left): (Self, Int, Int) = ([], start, count)
    for piece in self where left > 0 {
      guard skip < piece.count else {
        skip -= piece.count
        continue
      }
      let length = Swift.min(left, piece.count - skip)
      parts.append(.init(rebasing: piece[skip..<skip + length]))
      (skip, left) = (0, left - length)
    }
    return parts
  }
}

/// Memory of a request's own.
final class Scratch {
  // SAFETY: allocated here and freed when nobody can reach it any more.
  let bytes: UnsafeMutableRawBufferPointer

  /// Its contents are zeros.
  init(_ count: Int) {
    // SAFETY: freed by deinit.
    bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 4096)
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { bytes.deallocate() }

  var isZero: Bool { UnsafeRawBufferPointer(bytes).isZero }
}

extension UnsafeRawBufferPointer {
  var isZero: Bool {
    var index = 0
    while index + 8 <= count {
      if loadUnaligned(fromByteOffset: index, as: UInt64.self) != 0 { return false }
      index += 8
    }
    while index < count {
      if self[index] != 0 { return false }
      index += 1
    }
    return true
  }
}
