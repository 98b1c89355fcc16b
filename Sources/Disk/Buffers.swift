import LinuxSystem

/// The memory that a request's bytes go to, in pieces.
extension [UnsafeMutableRawBufferPointer] {
  var byteCount: Int { reduce(0) { $0 + $1.count } }

  /// `count` bytes from `start` on, both within.
  func part(_ start: Int, _ count: Int) -> Self {
    // What is one piece as a whole, as most are, costs nothing.
    if let first, self.count == 1, start == 0, count == first.count { return self }
    return Pieces.ranges(map(\.count), start, count).map { .init(rebasing: self[$0][$1]) }
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
    // What is one piece as a whole, as most are, costs nothing.
    if let first, self.count == 1, start == 0, count == first.count { return self }
    return Pieces.ranges(map(\.count), start, count).map { .init(rebasing: self[$0][$1]) }
  }
}

private enum Pieces {
  /// The part of each piece that is in `count` bytes from `start` on.
  static func ranges(_ sizes: [Int], _ start: Int, _ count: Int) -> [(Int, Range<Int>)] {
    if sizes.count == 1 { return [(0, start..<start + count)] }
    var (ranges, skip, left): ([(Int, Range<Int>)], Int, Int) = ([], start, count)
    for (index, size) in sizes.enumerated() where left > 0 {
      guard skip < size else {
        skip -= size
        continue
      }
      let length = min(left, size - skip)
      ranges.append((index, skip..<skip + length))
      (skip, left) = (0, left - length)
    }
    return ranges
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
