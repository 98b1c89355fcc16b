import DeviceModel

/// The memory that text, planar and palette modes are painted into, as rows of
/// xrgb8888 pixels without gaps.
struct RenderedSurface {
  /// What the largest mode that the CRTC can describe needs: 4096 × 1024 pixels.
  static let minimumSize = 16 << 20

  private let storage: any SharedBytes
  private let base: UnsafeMutablePointer<UInt32>
  private let capacity: Int

  /// - Returns: nil when `storage` is too small or not aligned for pixels.
  init?(_ storage: any SharedBytes) {
    guard storage.bytes.count >= Self.minimumSize, let start = storage.bytes.baseAddress,
      Int(bitPattern: start) % MemoryLayout<UInt32>.alignment == 0
    else { return nil }
    self.storage = storage
    capacity = storage.bytes.count / MemoryLayout<UInt32>.stride
    // SAFETY: aligned (checked), and mapped for as long as `storage`, which this
    // value keeps; nothing else views these bytes as another type.
    base = start.bindMemory(to: UInt32.self, capacity: capacity)
  }

  /// The rows of `width` pixels that there is room for, at most `height`.
  func rows(width: Int, height: Int) -> Int {
    width > 0 ? min(height, capacity / width) : 0
  }

  /// Row `y` of a picture that is `width` wide, or nil when it is outside.
  func row(_ y: Int, width: Int) -> UnsafeMutablePointer<UInt32>? {
    guard y >= 0, width > 0, y < capacity / width else { return nil }
    // SAFETY: (y + 1) × width <= capacity, by the guard.
    return base + y * width
  }

  func scanout(width: Int, height: Int) -> Scanout {
    Scanout(
      source: .rendered, offset: 0, stride: width * 4, width: width,
      height: rows(width: width, height: height), format: .xrgb8888)
  }

  func clear(width: Int, height: Int) {
    // SAFETY: `rows` bounds the count by the capacity.
    base.update(repeating: 0, count: rows(width: width, height: height) * max(width, 0))
  }
}
