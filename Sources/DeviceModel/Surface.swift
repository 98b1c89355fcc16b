/// A rectangle in pixels; `width` or `height` 0 is empty.
public struct Rect: Hashable, Sendable, Codable {
  public var x: Int
  public var y: Int
  public var width: Int
  public var height: Int

  public init(x: Int, y: Int, width: Int, height: Int) {
    self.x = x
    self.y = y
    self.width = width
    self.height = height
  }

  public var isEmpty: Bool { width <= 0 || height <= 0 }

  /// The part of this rectangle within another; empty when they do not meet.
  public func intersection(_ other: Rect) -> Rect {
    let left = max(x, other.x)
    let top = max(y, other.y)
    let right = min(x &+ width, other.x &+ other.width)
    let bottom = min(y &+ height, other.y &+ other.height)
    guard right > left && bottom > top else { return Rect(x: 0, y: 0, width: 0, height: 0) }
    return Rect(x: left, y: top, width: right - left, height: bottom - top)
  }
}

/// How a pixel lies in memory. All are little-endian, as PC graphics are.
public enum PixelFormat: UInt8, Hashable, Sendable, Codable {
  /// 4 bytes: blue, green, red, unused.
  case xrgb8888 = 0
  /// 3 bytes: blue, green, red.
  case rgb888 = 1
  /// 2 bytes: 5 red, 6 green, 5 blue bits from the top.
  case rgb565 = 2
  /// 2 bytes: 1 unused, 5 red, 5 green, 5 blue bits from the top.
  case xrgb1555 = 3

  public var bytesPerPixel: Int {
    switch self {
    case .xrgb8888: 4
    case .rgb888: 3
    case .rgb565, .xrgb1555: 2
    }
  }
}

/// Where the picture that the display adapter scans out lies.
public struct Scanout: Hashable, Sendable, Codable {
  public enum Source: UInt8, Hashable, Sendable, Codable {
    /// In VRAM: zero copy.
    case videoMemory = 0
    /// In the rendered surface that the adapter paints (text, planar, palette).
    case rendered = 1
    /// In the memory of a graphics card that keeps its pictures by itself: zero copy.
    case graphicsMemory = 2
  }

  public var source: Source
  /// Byte offset of the first pixel within its source.
  public var offset: Int
  /// Bytes from one row to the next.
  public var stride: Int
  public var width: Int
  public var height: Int
  public var format: PixelFormat

  public init(
    source: Source, offset: Int, stride: Int, width: Int, height: Int, format: PixelFormat
  ) {
    self.source = source
    self.offset = offset
    self.stride = stride
    self.width = width
    self.height = height
    self.format = format
  }
}

/// What changed on a display adapter since it was last asked.
public struct ScanoutUpdate: Sendable {
  public var scanout: Scanout
  /// Changed areas in pixels of `scanout`. The whole of it after a mode change.
  public var damage: [Rect]

  public init(scanout: Scanout, damage: [Rect]) {
    self.scanout = scanout
    self.damage = damage
  }
}

/// Host memory that a device may use as its own, shared with other processes.
///
/// The bytes stay mapped for as long as the object lives.
public protocol SharedBytes: AnyObject {
  var bytes: UnsafeMutableRawBufferPointer { get }

  /// Lets go of whole pages, which read as 0 then.
  func release(_ range: Range<Int>)
}

extension SharedBytes {
  /// For memory that the host cannot take back.
  public func release(_ range: Range<Int>) {
    // SAFETY: the range is clamped to the bytes.
    let part = UnsafeMutableRawBufferPointer(rebasing: bytes[range.clamped(to: 0..<bytes.count)])
    part.initializeMemory(as: UInt8.self, repeating: 0)
  }
}

/// A display adapter as the machine's display thread sees it.
public protocol DisplayAdapter: AnyObject {
  /// Brings the scan-out up to date. Device lock held; display thread.
  ///
  /// - Parameter dirtyVideoMemory: VRAM pages that vCPUs wrote through the
  ///   linear frame buffer since the last call (writes through the legacy window
  ///   are known to the adapter itself).
  /// - Returns: the present scan-out and its damage, in which an unchanged
  ///   picture has no rectangles.
  func refresh(dirtyVideoMemory: DirtyPages) -> ScanoutUpdate

  /// Called at the next access that may change the picture in another way than by
  /// a write through the linear frame buffer (a register, the legacy window), then
  /// forgotten. Device lock held, on the accessing vCPU's thread; must not block.
  var onNextAccess: (() -> Void)? { get set }
}
