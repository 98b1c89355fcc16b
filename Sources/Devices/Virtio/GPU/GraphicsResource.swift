import DeviceModel

/// Pixel formats of 2D resources (VIRTIO 1.2, section 5.7.6.8), named by the order of
/// their bytes in memory.
enum GraphicsFormat: UInt32, Codable, Sendable {
  case bgra = 1
  case bgrx = 2
  case argb = 3
  case xrgb = 4
  case rgba = 67
  case xbgr = 68
  case abgr = 121
  case rgbx = 134

  /// Where blue, green, red and alpha lie among a pixel's bytes.
  private var order: (Int, Int, Int, Int) {
    switch self {
    case .bgra, .bgrx: (0, 1, 2, 3)
    case .argb, .xrgb: (3, 2, 1, 0)
    case .rgba, .rgbx: (2, 1, 0, 3)
    case .xbgr, .abgr: (1, 2, 3, 0)
    }
  }

  /// Whether pixels lie in memory as displays take them.
  var isNative: Bool { self == .bgra || self == .bgrx }

  /// Puts pixels into the order of `bgra`.
  func makeNative(_ pixels: UnsafeMutableRawBufferPointer) {
    guard !isNative else { return }
    let (blue, green, red, alpha) = order
    for at in stride(from: 0, to: pixels.count & ~3, by: 4) {
      let pixel = (pixels[at + blue], pixels[at + green], pixels[at + red], pixels[at + alpha])
      (pixels[at], pixels[at + 1], pixels[at + 2], pixels[at + 3]) = pixel
    }
  }
}

/// A picture that the guest's driver made: pixels in host memory, in rows without gaps,
/// and the guest's memory that they are copied from when the driver says so.
struct GraphicsResource: Codable, Sendable {
  static let bytesPerPixel = 4

  let identifier: UInt32
  let format: GraphicsFormat
  let width: Int
  let height: Int
  /// In the card's memory.
  let offset: Int
  private(set) var backing: [VirtqueueChain.Segment] = []
  /// Where each piece of `backing` begins, counted through all of them.
  private var starts: [UInt64] = []

  init(identifier: UInt32, format: GraphicsFormat, width: Int, height: Int, offset: Int) {
    self.identifier = identifier
    self.format = format
    self.width = width
    self.height = height
    self.offset = offset
  }

  var stride: Int { width * Self.bytesPerPixel }
  var byteCount: Int { stride * height }
  var bounds: Rect { Rect(x: 0, y: 0, width: width, height: height) }

  /// What a saved state says can be.
  var isSound: Bool {
    (1...VirtioGPU.maximumSide).contains(width) && (1...VirtioGPU.maximumSide).contains(height)
      && backing.count == starts.count
  }

  mutating func attach(_ segments: [VirtqueueChain.Segment]) {
    backing = segments
    starts = []
    var end: UInt64 = 0
    for segment in segments {
      starts.append(end)
      end += UInt64(segment.count)
    }
  }

  mutating func detach() {
    backing = []
    starts = []
  }

  /// Where the pixel at (`x`, `y`) lies in the card's memory.
  func place(x: Int, y: Int) -> Int { offset + y * stride + x * Self.bytesPerPixel }

  /// Copies `rect`, which lies within the picture, from the guest's memory, where its
  /// first pixel is at `start` and rows are as long as the picture's.
  ///
  /// - Returns: `false` when that is not all there.
  func transfer(
    _ rect: Rect, from start: UInt64, _ memory: any GuestMemory, to target: GraphicsMemory
  ) -> Bool {
    let isWhole = rect.width == width
    let length = rect.width * Self.bytesPerPixel * (isWhole ? rect.height : 1)
    var from = start
    for row in 0..<(isWhole ? 1 : rect.height) {
      let place = place(x: rect.x, y: rect.y + row)
      guard let pixels = target.bytes(place, count: length), copy(from, memory, to: pixels)
      else { return false }
      format.makeNative(pixels)
      from = from &+ UInt64(stride)
    }
    return true
  }

  private func copy(
    _ start: UInt64, _ memory: any GuestMemory, to pixels: UnsafeMutableRawBufferPointer
  ) -> Bool {
    guard var index = segment(at: start) else { return false }
    var skipped = start - starts[index]
    var done = 0
    while done < pixels.count {
      guard index < backing.count else { return false }
      let segment = backing[index]
      let count = min(pixels.count - done, Int(segment.count) - Int(skipped))
      if count > 0 {
        do {
          // SAFETY: `count` ends within `pixels`, by the minimum above.
          try memory.read(
            at: segment.address &+ skipped,
            into: UnsafeMutableRawBufferPointer(rebasing: pixels[done..<done + count]))
        } catch {
          return false
        }
        done += count
      }
      skipped = 0
      index += 1
    }
    return true
  }

  /// The piece of backing that holds byte `position`.
  private func segment(at position: UInt64) -> Int? {
    var (low, high) = (0, starts.count)
    while low < high {
      let middle = (low + high) / 2
      if starts[middle] <= position { low = middle + 1 } else { high = middle }
    }
    guard low > 0, position - starts[low - 1] < UInt64(backing[low - 1].count) else { return nil }
    return low - 1
  }
}
