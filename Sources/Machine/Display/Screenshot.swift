import CPNG
import DeviceModel

/// A picture as rows of red, green and blue bytes without gaps.
public struct Screenshot: Hashable, Sendable {
  public let width: Int
  public let height: Int
  public let pixels: [UInt8]

  /// Converts a scan-out of any format.
  init(_ scanout: Scanout, in memory: UnsafeRawBufferPointer) throws(MachineError) {
    let rowBytes = scanout.width * scanout.format.bytesPerPixel
    let last = scanout.offset + (scanout.height - 1) * scanout.stride + rowBytes
    guard (1...16384).contains(scanout.width), (1...16384).contains(scanout.height),
      scanout.offset >= 0, scanout.stride >= 0, last <= memory.count
    else { throw MachineError(.state, "the picture does not lie in video memory") }
    width = scanout.width
    height = scanout.height
    var pixels: [UInt8] = []
    pixels.reserveCapacity(width * height * 3)
    for y in 0..<height {
      // SAFETY: the last row was checked to end inside the memory.
      let row = UnsafeRawBufferPointer(
        rebasing: memory[(scanout.offset + y * scanout.stride)...].prefix(rowBytes))
      Self.append(row, scanout.format, to: &pixels)
    }
    self.pixels = pixels
  }

  private static func append(
    _ row: UnsafeRawBufferPointer, _ format: PixelFormat, to pixels: inout [UInt8]
  ) {
    let step = format.bytesPerPixel
    for at in stride(from: 0, to: row.count, by: step) {
      switch format {
      case .xrgb8888, .rgb888:
        pixels.append(row[at + 2])
        pixels.append(row[at + 1])
        pixels.append(row[at])
      case .rgb565:
        let value = Int(row[at]) | Int(row[at + 1]) << 8
        pixels.append(expand(value >> 11, bits: 5))
        pixels.append(expand(value >> 5, bits: 6))
        pixels.append(expand(value, bits: 5))
      case .xrgb1555:
        let value = Int(row[at]) | Int(row[at + 1]) << 8
        pixels.append(expand(value >> 10, bits: 5))
        pixels.append(expand(value >> 5, bits: 5))
        pixels.append(expand(value, bits: 5))
      }
    }
  }

  /// The low `bits` of `value` as eight bits, its top bits repeated below it, as
  /// pixman and QEMU do.
  private static func expand(_ value: Int, bits: Int) -> UInt8 {
    let value = value & ((1 << bits) - 1)
    return UInt8(truncatingIfNeeded: value << (8 - bits) | value >> (2 * bits - 8))
  }

  /// Portable pixmap, binary (P6).
  public var ppm: [UInt8] { Array("P6\n\(width) \(height)\n255\n".utf8) + pixels }

  /// Portable network graphics.
  public func png() throws(MachineError) -> [UInt8] {
    var image = png_image()
    image.version = UInt32(PNG_IMAGE_VERSION)
    image.width = UInt32(width)
    image.height = UInt32(height)
    image.format = UInt32(PNG_FORMAT_FLAG_COLOR)
    // Rows compress to less than they are, but for their filter bytes and headers.
    var size = pixels.count + height * 16 + 65536
    var output = [UInt8](repeating: 0, count: size)
    // SAFETY: `size` says how much room there is; the pixels are width × height × 3.
    let done = png_image_write_to_memory(
      &image, &output, &size, 0, pixels, Int32(width * 3), nil)
    guard done != 0, size <= output.count else {
      throw MachineError(.host, "the picture could not be compressed")
    }
    return Array(output.prefix(size))
  }
}
