import CVNCServer
import DeviceModel
import Glibc

/// Cursor images as libvncserver keeps them.
enum RichCursor {
  /// libvncserver sends a cursor whose pixels and mask fit its update buffer of 30,000
  /// bytes, and none at all otherwise; this side fits with room for the headers.
  private static let maximumSide = 80

  /// A cursor for `rfbFreeCursor`; `nil` when memory is short. One too large to be
  /// sent is made smaller.
  static func make(_ picture: CursorImage) -> UnsafeMutablePointer<rfbCursor>? {
    let image = fitting(picture)
    let (width, height) = (image.width, image.height)
    let rowBytes = (width + 7) / 8
    guard let cursor = zeroed(rfbCursor.self, 1),
      let mask = zeroed(UInt8.self, rowBytes * height),
      let source = zeroed(UInt8.self, rowBytes * height),
      let rich = zeroed(UInt8.self, width * height * 4)
    else { return nil }
    // SAFETY: x and y stay below the sides for which the buffers were made.
    for y in 0..<height {
      for x in 0..<width {
        let pixel = (y * image.width + x) * 4
        let alpha = image.pixels[pixel + 3]
        guard alpha >= 128 else { continue }
        let bit = UInt8(0x80) >> UInt8(x % 8)
        mask[y * rowBytes + x / 8] |= bit
        // Premultiplied colours of a nearly opaque pixel, taken as opaque.
        var brightness = 0
        for channel in 0..<3 {
          let value = min(255, Int(image.pixels[pixel + channel]) * 255 / Int(alpha))
          rich[(y * width + x) * 4 + channel] = UInt8(value)
          brightness += value
        }
        if brightness < 384 { source[y * rowBytes + x / 8] |= bit }
      }
    }
    cursor.pointee.cleanup = -1
    cursor.pointee.cleanupMask = -1
    cursor.pointee.cleanupSource = -1
    cursor.pointee.cleanupRichSource = -1
    cursor.pointee.mask = mask
    cursor.pointee.source = source
    cursor.pointee.richSource = rich
    cursor.pointee.width = UInt16(width)
    cursor.pointee.height = UInt16(height)
    cursor.pointee.xhot = UInt16(image.hotX)
    cursor.pointee.yhot = UInt16(image.hotY)
    // As an X cursor: dark pixels black, the others white.
    cursor.pointee.backRed = 0xFFFF
    cursor.pointee.backGreen = 0xFFFF
    cursor.pointee.backBlue = 0xFFFF
    return cursor
  }

  /// The image within the largest sides, each pixel the mean of those it stands for.
  private static func fitting(_ image: CursorImage) -> CursorImage {
    let longest = max(image.width, image.height)
    guard longest > maximumSide else { return image }
    let width = max(1, image.width * maximumSide / longest)
    let height = max(1, image.height * maximumSide / longest)
    var pixels: [UInt8] = []
    pixels.reserveCapacity(width * height * 4)
    for y in 0..<height {
      let rows = (y * image.height / height)..<((y + 1) * image.height / height)
      for x in 0..<width {
        let columns = (x * image.width / width)..<((x + 1) * image.width / width)
        for channel in 0..<4 {
          let sum = rows.reduce(0) { sum, row in
            columns.reduce(sum) { $0 + Int(image.pixels[(row * image.width + $1) * 4 + channel]) }
          }
          pixels.append(UInt8(sum / (rows.count * columns.count)))
        }
      }
    }
    return CursorImage(
      width: width, height: height, hotX: image.hotX * width / image.width,
      hotY: image.hotY * height / image.height, pixels: pixels) ?? image
  }

  /// Memory that libvncserver frees with free().
  private static func zeroed<Element>(_ type: Element.Type, _ count: Int)
    -> UnsafeMutablePointer<Element>?
  {
    // SAFETY: calloc returns room for `count` zeroed elements of a C type, or nil.
    calloc(max(1, count), MemoryLayout<Element>.stride)?.bindMemory(
      to: Element.self, capacity: count)
  }
}
