import DeviceModel

/// 24-bit pixels, however they came about.
struct Picture: Equatable {
  var width: Int
  var height: Int
  /// 0xRRGGBB, row by row.
  var pixels: [UInt32]

  init(width: Int, height: Int, pixels: [UInt32]) {
    self.width = width
    self.height = height
    self.pixels = pixels
  }

  /// A binary PPM with 255 as its maximum.
  init?(ppm: [UInt8]) {
    var position = 0
    func word() -> Substring? {
      while position < ppm.count, ppm[position] <= 0x20 { position += 1 }
      let start = position
      while position < ppm.count, ppm[position] > 0x20 { position += 1 }
      return Substring(decoding: ppm[start..<position], as: UTF8.self)
    }
    guard word() == "P6", let width = word().flatMap({ Int($0) }),
      let height = word().flatMap({ Int($0) }), word() == "255"
    else { return nil }
    position += 1
    guard ppm.count - position >= width * height * 3 else { return nil }
    self.width = width
    self.height = height
    pixels = [UInt32](repeating: 0, count: width * height)
    // Loops like this one, not closures: tests also run without optimisation.
    var index = 0
    while index < pixels.count {
      let red = UInt32(ppm[position]) << 16
      pixels[index] = red | UInt32(ppm[position + 1]) << 8 | UInt32(ppm[position + 2])
      position += 3
      index += 1
    }
  }

  /// What `scanout` shows of the memory it lies in.
  init(_ scanout: Scanout, in bytes: UnsafeMutableRawBufferPointer) {
    width = scanout.width
    height = scanout.height
    pixels = []
    pixels.reserveCapacity(width * height)
    for y in 0..<height {
      if scanout.format == .xrgb8888 {
        let row = scanout.offset + y * scanout.stride
        for x in 0..<width {
          pixels.append(
            bytes.loadUnaligned(fromByteOffset: row + x * 4, as: UInt32.self) & 0xFFFFFF)
        }
        continue
      }
      for x in 0..<width {
        let at = scanout.offset + y * scanout.stride + x * scanout.format.bytesPerPixel
        pixels.append(Self.pixel(scanout.format, at: at, in: bytes))
      }
    }
  }

  private static func pixel(
    _ format: PixelFormat, at: Int, in bytes: UnsafeMutableRawBufferPointer
  ) -> UInt32 {
    let low = UInt32(bytes[at]) | UInt32(bytes[at + 1]) << 8
    func spread(_ value: UInt32, _ bits: UInt32) -> UInt32 {
      let value = value & ((1 << bits) - 1)
      return value << (8 - bits) | value >> (2 * bits - 8)
    }
    switch format {
    case .xrgb8888, .rgb888: return low | UInt32(bytes[at + 2]) << 16
    case .rgb565:
      return spread(low >> 11, 5) << 16 | spread(low >> 5, 6) << 8 | spread(low, 5)
    case .xrgb1555:
      return spread(low >> 10, 5) << 16 | spread(low >> 5, 5) << 8 | spread(low, 5)
    }
  }

  var isUniform: Bool { !pixels.contains { $0 != pixels[0] } }

  func reduced(to mask: UInt32) -> Picture {
    Picture(width: width, height: height, pixels: pixels.map { $0 & mask })
  }

  subscript(x: Int, y: Int) -> UInt32 { pixels[y * width + x] }

  /// The first difference in words, or nil when the pictures are the same.
  func difference(from other: Picture) -> String? {
    guard width == other.width && height == other.height else {
      return "\(width)x\(height) against \(other.width)x\(other.height)"
    }
    if pixels == other.pixels { return nil }
    let places = pixels.indices.filter { pixels[$0] != other.pixels[$0] }
    guard let first = places.first else { return nil }
    let ours = String(pixels[first], radix: 16)
    let theirs = String(other.pixels[first], radix: 16)
    return "\(places.count) of \(pixels.count) pixels, the first at \(first % width),"
      + "\(first / width): \(ours) against \(theirs)"
  }

  /// Whether everything that differs from `other` lies in `damage`.
  func changesSince(_ other: Picture, areCoveredBy damage: [Rect]) -> Bool {
    var covered = [Bool](repeating: false, count: pixels.count)
    for rect in damage {
      for y in rect.y..<rect.y + rect.height {
        for x in rect.x..<rect.x + rect.width { covered[y * width + x] = true }
      }
    }
    return pixels.indices.allSatisfy { covered[$0] || pixels[$0] == other.pixels[$0] }
  }
}
