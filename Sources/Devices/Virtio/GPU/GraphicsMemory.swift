import DeviceModel

/// Host memory that a graphics card keeps pictures in, given out in whole pages. Nothing
/// is held by the host where no picture lies.
final class GraphicsMemory {
  private static let pageSize = 4096

  let storage: any SharedBytes
  /// Sorted, and apart from each other.
  private var used: [Range<Int>] = []

  init(_ storage: any SharedBytes) { self.storage = storage }

  /// Room for `count` bytes, all 0; `nil` when there is none in one piece.
  func allocate(_ count: Int) -> Int? {
    guard count > 0, count <= storage.bytes.count else { return nil }
    let size = Self.pages(count)
    var start = 0
    for (index, range) in used.enumerated() {
      if range.lowerBound - start >= size {
        used.insert(start..<start + size, at: index)
        return start
      }
      start = range.upperBound
    }
    guard storage.bytes.count - start >= size else { return nil }
    used.append(start..<start + size)
    return start
  }

  /// Takes the room that a saved state names; `false` when it is not free.
  func claim(_ offset: Int, count: Int) -> Bool {
    guard offset >= 0, offset % Self.pageSize == 0, count > 0, count <= storage.bytes.count,
      offset <= storage.bytes.count - count
    else { return false }
    let range = offset..<offset + Self.pages(count)
    guard !used.contains(where: { $0.overlaps(range) }) else { return false }
    let index = used.firstIndex { $0.lowerBound > offset } ?? used.count
    used.insert(range, at: index)
    return true
  }

  /// Gives room back, which is 0 when it is given out again.
  func free(_ offset: Int) {
    guard let index = used.firstIndex(where: { $0.lowerBound == offset }) else { return }
    storage.release(used.remove(at: index))
  }

  /// What is given out, for whoever saves it.
  var ranges: [Range<Int>] { used }

  /// `nil` for what lies beyond the memory.
  func bytes(_ offset: Int, count: Int) -> UnsafeMutableRawBufferPointer? {
    guard offset >= 0, count >= 0, count <= storage.bytes.count,
      offset <= storage.bytes.count - count
    else { return nil }
    // SAFETY: the range lies within the storage, which outlives this object.
    return UnsafeMutableRawBufferPointer(rebasing: storage.bytes[offset..<offset + count])
  }

  private static func pages(_ count: Int) -> Int { (count + pageSize - 1) & ~(pageSize - 1) }
}
