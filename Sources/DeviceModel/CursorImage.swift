/// The picture of a pointer and the pixel in it that points.
public struct CursorImage: Hashable, Sendable {
  /// No cursor is wider or higher; larger ones are drawn by the guest.
  public static let maximumSide = 128

  public let width: Int
  public let height: Int
  public let hotX: Int
  public let hotY: Int
  /// Rows without gaps, per pixel blue, green, red, alpha; colours premultiplied.
  public let pixels: [UInt8]

  /// `nil` when a side is too long, the pixels are not as many as the sides say,
  /// or the hot spot lies outside. No sides at all hide the pointer.
  public init?(width: Int, height: Int, hotX: Int, hotY: Int, pixels: [UInt8]) {
    let sides = 0...Self.maximumSide
    guard sides.contains(width), sides.contains(height), (width == 0) == (height == 0),
      pixels.count == width * height * 4,
      hotX >= 0 && hotX <= max(0, width - 1), hotY >= 0 && hotY <= max(0, height - 1)
    else { return nil }
    self.width = width
    self.height = height
    self.hotX = hotX
    self.hotY = hotY
    self.pixels = pixels
  }

  private init() {
    width = 0
    height = 0
    hotX = 0
    hotY = 0
    pixels = []
  }

  /// No pointer at all, as for guests that draw their own.
  public static let hidden = CursorImage()

  public var isHidden: Bool { width == 0 }
}
