import CPixman
import DeviceModel

/// Turns rows of any scan-out format into 32-bit pixels (blue, green, red, unused).
public enum PixelConverter {
  /// Converts `width` × `height` pixels.
  ///
  /// - Parameters:
  ///   - source: starts at the first pixel and holds all rows.
  ///   - sourceStride: bytes between rows.
  ///   - destination: room for `height` rows, `destinationStride` pixels apart.
  /// - Returns: `false`, with nothing written, when a buffer is too small.
  public static func convert(
    _ source: UnsafeRawBufferPointer, _ format: PixelFormat, sourceStride: Int,
    width: Int, height: Int,
    to destination: UnsafeMutableBufferPointer<UInt32>, destinationStride: Int
  ) -> Bool {
    let scanout = Scanout(
      source: .rendered, offset: 0, stride: sourceStride, width: width, height: height,
      format: format)
    guard width > 0, height > 0, scanout.fits(in: source.count), destinationStride >= width,
      destination.count >= destinationStride * (height - 1) + width,
      let from = source.baseAddress, let to = destination.baseAddress
    else { return false }
    if sourceStride % 4 == 0 && Int(bitPattern: from) % 4 == 0 {
      return blit(from, format, sourceStride, width, height, to, destinationStride)
    }
    for y in 0..<height {
      // SAFETY: both buffers were checked to hold `height` rows of `width` pixels.
      convertRow(from + y * sourceStride, format, width, to + y * destinationStride)
    }
    return true
  }

  /// By pixman, which wants aligned rows.
  private static func blit(
    _ from: UnsafeRawPointer, _ format: PixelFormat, _ stride: Int, _ width: Int,
    _ height: Int, _ to: UnsafeMutablePointer<UInt32>, _ destinationStride: Int
  ) -> Bool {
    // SAFETY: pixman only reads the source, whose bounds and alignment were checked.
    let bits = UnsafeMutableRawPointer(mutating: from).assumingMemoryBound(to: UInt32.self)
    guard
      let source = pixman_image_create_bits_no_clear(
        code(format), Int32(width), Int32(height), bits, Int32(clamping: stride))
    else { return false }
    defer { pixman_image_unref(source) }
    guard
      let destination = pixman_image_create_bits_no_clear(
        PIXMAN_x8r8g8b8, Int32(width), Int32(height), to,
        Int32(clamping: destinationStride * 4))
    else { return false }
    defer { pixman_image_unref(destination) }
    pixman_image_composite32(
      PIXMAN_OP_SRC, source, nil, destination, 0, 0, 0, 0, 0, 0, Int32(width), Int32(height))
    return true
  }

  private static func code(_ format: PixelFormat) -> pixman_format_code_t {
    switch format {
    case .xrgb8888: PIXMAN_x8r8g8b8
    case .rgb888: PIXMAN_r8g8b8
    case .rgb565: PIXMAN_r5g6b5
    case .xrgb1555: PIXMAN_x1r5g5b5
    }
  }

  private static func convertRow(
    _ from: UnsafeRawPointer, _ format: PixelFormat, _ width: Int,
    _ to: UnsafeMutablePointer<UInt32>
  ) {
    // SAFETY: the caller checked that the row holds `width` pixels.
    for x in 0..<width {
      switch format {
      case .xrgb8888:
        to[x] = from.loadUnaligned(fromByteOffset: x * 4, as: UInt32.self)
      case .rgb888:
        let low = from.loadUnaligned(fromByteOffset: x * 3, as: UInt16.self)
        let high = from.load(fromByteOffset: x * 3 + 2, as: UInt8.self)
        to[x] = UInt32(high) << 16 | UInt32(low)
      case .rgb565:
        let pixel = UInt32(from.loadUnaligned(fromByteOffset: x * 2, as: UInt16.self))
        to[x] = widen(pixel >> 11, 5) << 16 | widen(pixel >> 5 & 63, 6) << 8 | widen(pixel & 31, 5)
      case .xrgb1555:
        let pixel = UInt32(from.loadUnaligned(fromByteOffset: x * 2, as: UInt16.self))
        to[x] =
          widen(pixel >> 10 & 31, 5) << 16 | widen(pixel >> 5 & 31, 5) << 8
          | widen(pixel & 31, 5)
      }
    }
  }

  /// A colour of 5 or 6 bits as 8, with full range.
  private static func widen(_ value: UInt32, _ bits: UInt32) -> UInt32 {
    value << (8 - bits) | value >> (2 * bits - 8)
  }
}
