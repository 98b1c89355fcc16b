import DeviceModel
import Display
import Glibc

/// A picture of our own, 32 bits a pixel (blue, green, red, unused): what the
/// viewer has or will have. libvncserver encodes from it.
///
/// Owned by the encoder's thread.
package final class Frame {
  package let width: Int
  package let height: Int
  package let pixels: UnsafeMutablePointer<UInt32>

  package init(width: Int, height: Int) {
    self.width = width
    self.height = height
    let count = max(1, width * height)
    // SAFETY: room for every pixel, owned by this object until deinit.
    pixels = UnsafeMutablePointer<UInt32>.allocate(capacity: count)
    pixels.initialize(repeating: 0, count: count)
  }

  deinit {
    pixels.deallocate()
  }

  package var bounds: Rect { Rect(x: 0, y: 0, width: width, height: height) }

  /// The pixels from (x, y) rightwards; the caller stays within the row.
  func row(_ y: Int, from x: Int = 0) -> UnsafeMutablePointer<UInt32> {
    pixels + (y * width + x)
  }

  /// Size of the tiles that are compared.
  package static let tileWidth = 64
  package static let tileHeight = 16

  /// Brings `damage` up to date from `source`; returns the tiles that differed.
  package func update(from source: some PixelSource, damage: Region) -> Region {
    var changed = Region()
    for rect in Self.tiles(damage.intersection(bounds)).rects {
      var y = rect.y
      while y < rect.y + rect.height {
        let rows = min(Self.tileHeight, rect.y + rect.height - y)
        let band = Rect(x: rect.x, y: y, width: rect.width, height: rows)
          .intersection(bounds)
        if !band.isEmpty {
          source.withRows(band) { rows, stride in update(band, rows, stride, &changed) }
        }
        y += Self.tileHeight
      }
    }
    return changed
  }

  /// Compares one band, tile by tile; `rows` starts at its first pixel.
  private func update(
    _ band: Rect, _ rows: UnsafePointer<UInt32>, _ stride: Int, _ changed: inout Region
  ) {
    var x = 0
    var run: Rect?
    while x < band.width {
      let width = min(Self.tileWidth, band.width - x)
      if copyIfChanged(band, x, width, rows, stride) {
        if run == nil { run = Rect(x: band.x + x, y: band.y, width: 0, height: band.height) }
        run?.width += width
      } else if let finished = run {
        changed.formUnion(finished)
        run = nil
      }
      x += Self.tileWidth
    }
    if let finished = run { changed.formUnion(finished) }
  }

  private func copyIfChanged(
    _ band: Rect, _ x: Int, _ width: Int, _ rows: UnsafePointer<UInt32>, _ stride: Int
  ) -> Bool {
    var line = 0
    // SAFETY: `band` lies within this frame, and `rows` holds its rows, `stride`
    // pixels apart; x + width stays within both.
    while line < band.height,
      memcmp(row(band.y + line, from: band.x + x), rows + (line * stride + x), width * 4) == 0
    {
      line += 1
    }
    guard line < band.height else { return false }
    while line < band.height {
      memcpy(row(band.y + line, from: band.x + x), rows + (line * stride + x), width * 4)
      line += 1
    }
    return true
  }

  /// The region enlarged to whole tiles, as damage finer than that saves nothing.
  static func tiles(_ region: Region) -> Region {
    var result = Region()
    for rect in region.rects {
      let left = rect.x / tileWidth * tileWidth
      let top = rect.y / tileHeight * tileHeight
      let right = (rect.x + rect.width + tileWidth - 1) / tileWidth * tileWidth
      let bottom = (rect.y + rect.height + tileHeight - 1) / tileHeight * tileHeight
      result.formUnion(Rect(x: left, y: top, width: right - left, height: bottom - top))
    }
    return result
  }
}

/// Where a frame's pixels come from.
package protocol PixelSource {
  var width: Int { get }
  var height: Int { get }

  /// Gives the pixels of `rect`, which lies within the picture, as 32-bit rows
  /// that are `stride` pixels apart.
  func withRows(_ rect: Rect, _ body: (UnsafePointer<UInt32>, _ stride: Int) -> Void)
}
