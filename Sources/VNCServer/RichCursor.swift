import CVNCServer
import Display
import Glibc

/// Cursor images as libvncserver keeps them.
enum RichCursor {
  /// The largest side that fits an update buffer of libvncserver.
  private static let maximumSide = 64

  /// A cursor for `rfbFreeCursor`; `nil` when memory is short.
  static func make(_ image: CursorImage) -> UnsafeMutablePointer<rfbCursor>? {
    let width = min(image.width, maximumSide)
    let height = min(image.height, maximumSide)
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
    cursor.pointee.xhot = UInt16(min(image.hotX, width - 1))
    cursor.pointee.yhot = UInt16(min(image.hotY, height - 1))
    // As an X cursor: dark pixels black, the others white.
    cursor.pointee.backRed = 0xFFFF
    cursor.pointee.backGreen = 0xFFFF
    cursor.pointee.backBlue = 0xFFFF
    return cursor
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
