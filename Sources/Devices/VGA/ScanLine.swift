import DeviceModel

/// One line of pixels decoded from VRAM, before panning moves it into place.
struct ScanLine {
  private var pixels: [UInt32] = []

  /// Decodes at least `dots` pixels of the row at byte `address`, wrapping in VRAM.
  mutating func decode(
    _ geometry: GraphicsGeometry, palette: [UInt32], memory: VideoMemory, address: Int, dots: Int
  ) {
    // The decoders below write whole groups of up to 16 dots.
    let padded = (dots + 15) & ~15
    if pixels.count < padded { pixels = Array(repeating: 0, count: padded) }
    switch geometry.pixels {
    case .planar(let enable):
      decodePlanes(
        padded, dotRepeat: geometry.dotRepeat, enable: enable, palette: palette, memory: memory,
        address: address, spread: Self.planarIndices)
    case .interleaved(let enable):
      decodePlanes(
        padded, dotRepeat: geometry.dotRepeat, enable: enable, palette: palette, memory: memory,
        address: address, spread: Self.interleavedIndices)
    case .packed: decodePacked(padded, shift: 0, palette: palette, memory: memory, address: address)
    case .packedDouble:
      decodePacked(padded, shift: 1, palette: palette, memory: memory, address: address)
    case .swapped(let format):
      decodeSwapped(padded, format: format, memory: memory, address: address)
    }
  }

  /// Copies pixels `first ..< first + count` to `destination`.
  ///
  /// - Returns: the columns that differed from what was there.
  func copy(
    from first: Int, to destination: UnsafeMutablePointer<UInt32>, count: Int
  ) -> Range<Int>? {
    guard first >= 0, count > 0, first + count <= pixels.count else { return nil }
    // SAFETY: the guard keeps the source inside `pixels`; the caller's row has
    // `count` pixels.
    return pixels.withUnsafeBufferPointer { buffer -> Range<Int>? in
      guard let base = buffer.baseAddress else { return nil }
      let source = base + first
      var left = 0
      while left < count && source[left] == destination[left] { left += 1 }
      guard left < count else { return nil }
      var right = count
      while source[right - 1] == destination[right - 1] { right -= 1 }
      // SAFETY: left ..< right lies in 0 ..< count, and the two do not overlap.
      (destination + left).update(from: source + left, count: right - left)
      return left..<right
    }
  }

  /// Bit n of a byte to bit 4n: one plane's part of eight colour indices.
  private static let everyFourth = spreading(bits: 1)

  /// Bits 2n+1 and 2n of a byte to bits 4n+1 and 4n: half of four colour indices.
  private static let everyPair = spreading(bits: 2)

  /// For each byte, its groups of `bits` at a distance of four bits.
  private static func spreading(bits: UInt32) -> [UInt32] {
    (0..<256).map { (byte: UInt32) -> UInt32 in
      var spread: UInt32 = 0
      for group in 0..<8 / bits {
        let value = byte >> (group * bits) & ((1 << bits) - 1)
        spread |= value << (group * 4)
      }
      return spread
    }
  }

  /// Eight colour indices, the leftmost in the top nibble.
  private static func planarIndices(_ planes: UInt32) -> UInt32 {
    everyFourth[Int(planes & 0xFF)] | everyFourth[Int(planes >> 8 & 0xFF)] << 1
      | everyFourth[Int(planes >> 16 & 0xFF)] << 2 | everyFourth[Int(planes >> 24)] << 3
  }

  private static func interleavedIndices(_ planes: UInt32) -> UInt32 {
    let even = everyPair[Int(planes & 0xFF)] | everyPair[Int(planes >> 16 & 0xFF)] << 2
    let odd = everyPair[Int(planes >> 8 & 0xFF)] | everyPair[Int(planes >> 24)] << 2
    return even << 16 | odd
  }

  private mutating func decodePlanes(
    _ count: Int, dotRepeat: Int, enable: UInt8, palette: [UInt32], memory: VideoMemory,
    address: Int, spread: (UInt32) -> UInt32
  ) {
    let mask = LegacyWindow.spread(UInt32(enable & 0x0F))
    var index = address / 4
    var at = 0
    while at < count {
      var indices = spread(memory.planes(at: index) & mask)
      index += 1
      for _ in 0..<8 {
        let color = palette[Int(indices >> 28)]
        indices <<= 4
        for _ in 0..<dotRepeat where at < count {
          pixels[at] = color
          at += 1
        }
      }
    }
  }

  /// Each byte becomes 1 << `shift` dots.
  private mutating func decodePacked(
    _ count: Int, shift: Int, palette: [UInt32], memory: VideoMemory, address: Int
  ) {
    guard palette.count == 256 else { return }
    for at in 0..<count {
      pixels[at] = palette[Int(memory[address + at >> shift])]
    }
  }

  private mutating func decodeSwapped(
    _ count: Int, format: PixelFormat, memory: VideoMemory, address: Int
  ) {
    let size = format.bytesPerPixel
    for at in 0..<count {
      let from = address + at * size
      let high = UInt32(memory[from])
      let middle = UInt32(memory[from + 1])
      switch format {
      case .xrgb8888:
        pixels[at] = middle << 16 | UInt32(memory[from + 2]) << 8 | UInt32(memory[from + 3])
      case .rgb888: pixels[at] = high << 16 | middle << 8 | UInt32(memory[from + 2])
      case .rgb565:
        pixels[at] = Self.expand(high << 8 | middle, redBits: 11..<16, greenBits: 5..<11)
      case .xrgb1555:
        pixels[at] = Self.expand(high << 8 | middle, redBits: 10..<15, greenBits: 5..<10)
      }
    }
  }

  private static func expand(
    _ value: UInt32, redBits: Range<Int>, greenBits: Range<Int>
  ) -> UInt32 {
    func level(_ bits: Range<Int>) -> UInt32 {
      let width = UInt32(bits.count)
      let raw = value >> UInt32(bits.lowerBound) & ((1 << width) - 1)
      return (raw << (8 - width) | raw >> (2 * width - 8)) & 0xFF
    }
    return level(redBits) << 16 | level(greenBits) << 8 | level(0..<5)
  }
}
