import DeviceModel
import Display
import Glibc

/// Finds parts of a picture that moved, so that the viewer can copy what it has:
/// scrolled text, a dragged window.
///
/// A guess from few rows, then proof tile by tile: what is returned is exact.
package struct CopyDetector {
  /// Part of the new picture that is the old one, (dx, dy) away.
  package struct Move: Equatable {
    package var region: Region
    package var dx: Int
    package var dy: Int
  }

  /// Smaller changes are not worth the look.
  private static let minimumArea = 128 * 64
  private static let segment = 64
  private static let reach = 128
  /// After this many pictures without a move, only every eighth is looked at.
  private static let patience = 12

  private var misses = 0

  package init() {}

  /// The largest move that explains changes within `damage`, if there is one.
  ///
  /// `old` and `source` have the same size.
  package mutating func move(_ old: Frame, _ source: some PixelSource, damage: Region) -> Move? {
    let tiles = Frame.tiles(damage).intersection(old.bounds)
    guard tiles.area >= Self.minimumArea, isWorthwhile() else { return nil }
    let changed = old.differing(from: source, in: tiles)
    guard changed.area >= Self.minimumArea / 2 else { return nil }
    for (dx, dy) in candidates(old, source, changed) {
      let region = Self.proven(old, source, changed, dx, dy)
      if region.area * 4 >= changed.area {
        misses = 0
        return Move(region: region, dx: dx, dy: dy)
      }
    }
    misses += 1
    return nil
  }

  private mutating func isWorthwhile() -> Bool {
    guard misses > Self.patience else { return true }
    misses += 1
    return misses % 8 == 0
  }

  // MARK: Guessing

  private func candidates(_ old: Frame, _ source: some PixelSource, _ changed: Region)
    -> [(Int, Int)]
  {
    var votes: [Int: Int] = [:]
    let bounds = changed.bounds
    let columns = max(1, bounds.width / Self.segment)
    for pick in Set([columns / 4, columns / 2, columns * 3 / 4]) {
      let x = min(bounds.x + pick * Self.segment, old.width - Self.segment)
      guard x >= 0 else { continue }
      vote(old, source, Rect(x: x, y: bounds.y, width: Self.segment, height: bounds.height), &votes)
    }
    var result: [(Int, Int)] = []
    if let best = votes.max(by: { $0.value < $1.value }), best.value >= 8 {
      result.append((0, best.key))
    }
    if let drag = anchoredMove(old, source, changed) { result.append(drag) }
    return result
  }

  /// Rows of a strip that were elsewhere in it vote for how far they went.
  private func vote(
    _ old: Frame, _ source: some PixelSource, _ strip: Rect, _ votes: inout [Int: Int]
  ) {
    var places: [UInt64: Int] = [:]
    var before = [UInt64](repeating: 0, count: strip.height)
    for line in 0..<strip.height {
      let hash = Self.hash(old.row(strip.y + line, from: strip.x), strip.width)
      before[line] = hash
      // A row that appears twice says nothing.
      places[hash] = places[hash] == nil ? line : -1
    }
    source.withRows(strip) { rows, stride in
      for line in 0..<strip.height {
        let hash = Self.hash(rows + line * stride, strip.width)
        guard hash != before[line], let place = places[hash], place >= 0 else { continue }
        votes[line - place, default: 0] += 1
      }
    }
  }

  private static func hash(_ pixels: UnsafePointer<UInt32>, _ count: Int) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    // SAFETY: the caller gives `count` pixels.
    for index in 0..<count {
      hash = (hash ^ UInt64(pixels[index])) &* 0x0000_0100_0000_01B3
      hash ^= hash >> 29
    }
    return hash
  }

  /// Looks for a piece of the changed part nearby in the old picture, in all
  /// directions.
  private func anchoredMove(_ old: Frame, _ source: some PixelSource, _ changed: Region)
    -> (Int, Int)?
  {
    let bounds = changed.bounds
    let length = 24
    for part in [(1, 2), (1, 3), (2, 3)] {
      let y = bounds.y + bounds.height * part.0 / part.1
      guard bounds.width >= length, y < old.height,
        let x = distinctiveColumn(
          old, source, Rect(x: bounds.x, y: y, width: bounds.width, height: 1), length)
      else { continue }
      var needle = [UInt32](repeating: 0, count: length)
      source.withRows(Rect(x: x, y: y, width: length, height: 1)) { rows, _ in
        for index in 0..<length { needle[index] = rows[index] }
      }
      if let found = find(needle, old, nearX: x, nearY: y) { return (x - found.x, y - found.y) }
    }
    return nil
  }

  /// Where in one row, best in its middle, pixels vary within `length` and are not
  /// what they were.
  private func distinctiveColumn(
    _ old: Frame, _ source: some PixelSource, _ row: Rect, _ length: Int
  ) -> Int? {
    let middle = (row.width - length) / 2
    var best: (column: Int, changes: Int)?
    source.withRows(row) { pixels, _ in
      let before = old.row(row.y, from: row.x)
      for step in stride(from: 0, through: middle, by: 8) {
        for column in [middle + step, middle - step] where column + length <= row.width {
          // SAFETY: `column` and the `length` after it stay within the row.
          guard memcmp(pixels + column, before + column, length * 4) != 0 else { continue }
          var changes = 0
          for index in 1..<length where pixels[column + index] != pixels[column + index - 1] {
            changes += 1
          }
          if changes > (best?.changes ?? 3) { best = (column, changes) }
        }
        if let best, best.changes >= length / 3 { return }
      }
    }
    return best.map { row.x + $0.column }
  }

  private func find(_ needle: [UInt32], _ old: Frame, nearX: Int, nearY: Int) -> (x: Int, y: Int)? {
    let left = max(0, nearX - Self.reach)
    let right = min(old.width - needle.count, nearX + Self.reach)
    guard let first = needle.first, left <= right else { return nil }
    for distance in 0..<Self.reach {
      for y in distance == 0 ? [nearY] : [nearY - distance, nearY + distance]
      where y >= 0 && y < old.height {
        let row = old.row(y)
        // SAFETY: x and the needle's length after it stay within the row.
        for x in left...right
        where row[x] == first && (x != nearX || y != nearY)
          && memcmp(row + x, needle, needle.count * 4) == 0
        {
          return (x, y)
        }
      }
    }
    return nil
  }

  // MARK: Proving

  /// The changed tiles that equal the old picture (dx, dy) away.
  private static func proven(
    _ old: Frame, _ source: some PixelSource, _ changed: Region, _ dx: Int, _ dy: Int
  ) -> Region {
    var result = Region()
    let possible = changed.intersection(
      Rect(x: dx, y: dy, width: old.width, height: old.height))
    for rect in possible.rects {
      for y in stride(from: rect.y, to: rect.y + rect.height, by: Frame.tileHeight) {
        for x in stride(from: rect.x, to: rect.x + rect.width, by: Frame.tileWidth) {
          let tile = Rect(
            x: x, y: y, width: min(Frame.tileWidth, rect.x + rect.width - x),
            height: min(Frame.tileHeight, rect.y + rect.height - y))
          if old.equals(source, tile, fromX: x - dx, fromY: y - dy) { result.formUnion(tile) }
        }
      }
    }
    return result
  }
}

extension Frame {
  /// Whether a tile of `source` is what this frame has at another place.
  func equals(_ source: some PixelSource, _ tile: Rect, fromX: Int, fromY: Int) -> Bool {
    var isEqual = true
    source.withRows(tile) { rows, stride in
      // SAFETY: both tiles lie within pictures of this frame's size.
      for line in 0..<tile.height
      where memcmp(row(fromY + line, from: fromX), rows + line * stride, tile.width * 4) != 0 {
        isEqual = false
        return
      }
    }
    return isEqual
  }

  /// The tiles within `region` that differ from `source`; changes nothing.
  func differing(from source: some PixelSource, in region: Region) -> Region {
    var result = Region()
    for rect in region.rects {
      for y in stride(from: rect.y, to: rect.y + rect.height, by: Self.tileHeight) {
        for x in stride(from: rect.x, to: rect.x + rect.width, by: Self.tileWidth) {
          let tile = Rect(
            x: x, y: y, width: min(Self.tileWidth, rect.x + rect.width - x),
            height: min(Self.tileHeight, rect.y + rect.height - y))
          if !equals(source, tile, fromX: x, fromY: y) { result.formUnion(tile) }
        }
      }
    }
    return result
  }

  /// Moves pixels as the viewer will.
  package func apply(_ move: CopyDetector.Move) {
    // Sources are read before they are written over: bands and, within a band,
    // rectangles go against the movement, as libvncserver sends them.
    let ordered = move.region.rects.sorted { first, second in
      if first.y != second.y { return move.dy > 0 ? first.y > second.y : first.y < second.y }
      return move.dx > 0 ? first.x > second.x : first.x < second.x
    }
    for rect in ordered {
      for line in 0..<rect.height {
        let y = rect.y + (move.dy > 0 ? rect.height - 1 - line : line)
        // SAFETY: the detector keeps both places within the frame.
        memmove(row(y, from: rect.x), row(y - move.dy, from: rect.x - move.dx), rect.width * 4)
      }
    }
  }
}
