/// Premultiplied ARGB, as cairo writes it; the screen ignores the top byte.
typealias Pixel = UInt32

extension UInt32 {
  /// An opaque pixel from 0xRRGGBB.
  static func rgb(_ value: UInt32) -> Pixel { 0xFF00_0000 | value }

  /// This pixel at `alpha` (0…255) of its strength.
  @inline(__always)
  func scaled(_ alpha: UInt32) -> Pixel {
    // Two channels at a time; x/255 as (x + 128 + (x >> 8)) >> 8.
    var low = (self & 0x00FF_00FF) &* alpha &+ 0x0080_0080
    low = (low &+ (low >> 8 & 0x00FF_00FF)) >> 8 & 0x00FF_00FF
    var high = (self >> 8 & 0x00FF_00FF) &* alpha &+ 0x0080_0080
    high = (high &+ (high >> 8 & 0x00FF_00FF)) & 0xFF00_FF00
    return low | high
  }

  /// This premultiplied pixel over another.
  @inline(__always)
  func over(_ below: Pixel) -> Pixel { self &+ below.scaled(255 &- (self >> 24)) }

  /// `amount` (0…255) of the way to another opaque pixel.
  @inline(__always)
  func mixed(_ other: Pixel, _ amount: UInt32) -> Pixel {
    scaled(255 &- amount) &+ other.scaled(amount)
  }
}
