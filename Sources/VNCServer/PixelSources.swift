import CPixman
import DeviceModel
import Display
import DisplayLink

/// The VMM's surface, as it lies in shared memory.
final class SurfaceSource: PixelSource {
  private let surface: DisplaySurface
  private var scratch: [UInt32] = []

  init(_ surface: DisplaySurface) {
    self.surface = surface
  }

  var width: Int { surface.scanout.width }
  var height: Int { surface.scanout.height }

  func withRows(_ rect: Rect, _ body: (UnsafePointer<UInt32>, _ stride: Int) -> Void) {
    let scanout = surface.scanout
    let pixelBytes = scanout.format.bytesPerPixel
    let bytes = surface.bytes
    let start = rect.y * scanout.stride + rect.x * pixelBytes
    guard let base = bytes.baseAddress, start < bytes.count else { return }
    let first = base + start
    if scanout.format == .xrgb8888 && scanout.stride % 4 == 0 && Int(bitPattern: first) % 4 == 0 {
      // SAFETY: the surface checked its span, and `rect` lies within the picture.
      body(first.assumingMemoryBound(to: UInt32.self), scanout.stride / 4)
      return
    }
    let count = rect.width * rect.height
    if scratch.count < count { scratch = [UInt32](repeating: 0, count: count) }
    // SAFETY: the rows from `first` to the picture's end; the converter checks again.
    scratch.withUnsafeMutableBufferPointer { buffer in
      let rows = UnsafeRawBufferPointer(rebasing: bytes[start...])
      guard
        PixelConverter.convert(
          rows, scanout.format, sourceStride: scanout.stride, width: rect.width,
          height: rect.height, to: buffer, destinationStride: rect.width),
        let converted = buffer.baseAddress
      else { return }
      body(converted, rect.width)
    }
  }
}

/// A frame of our own: a status screen, or a picture made to fit.
final class FrameSource: PixelSource {
  let frame: Frame

  init(_ frame: Frame) {
    self.frame = frame
  }

  var width: Int { frame.width }
  var height: Int { frame.height }

  func withRows(_ rect: Rect, _ body: (UnsafePointer<UInt32>, _ stride: Int) -> Void) {
    body(frame.row(rect.y, from: rect.x), frame.width)
  }
}

/// Where a guest's picture appears in a viewer's: the whole of it, or, in a
/// viewer that cannot change its size, centred between black bars and made
/// smaller when it does not fit.
package struct Viewport: Hashable, Sendable {
  package let frameWidth: Int
  package let frameHeight: Int
  package let pictureWidth: Int
  package let pictureHeight: Int
  /// The picture's place in the frame.
  package let area: Rect

  package init(frameWidth: Int, frameHeight: Int, pictureWidth: Int, pictureHeight: Int) {
    self.frameWidth = frameWidth
    self.frameHeight = frameHeight
    self.pictureWidth = pictureWidth
    self.pictureHeight = pictureHeight
    var width = pictureWidth
    var height = pictureHeight
    if width > frameWidth || height > frameHeight {
      // The tighter side decides; cross-multiplied ratios.
      if pictureWidth * frameHeight > pictureHeight * frameWidth {
        width = frameWidth
        height = max(1, pictureHeight * frameWidth / max(1, pictureWidth))
      } else {
        height = frameHeight
        width = max(1, pictureWidth * frameHeight / max(1, pictureHeight))
      }
    }
    area = Rect(
      x: (frameWidth - width) / 2, y: (frameHeight - height) / 2, width: width, height: height)
  }

  package var isIdentity: Bool {
    frameWidth == pictureWidth && frameHeight == pictureHeight
  }

  package var isScaled: Bool { area.width != pictureWidth || area.height != pictureHeight }

  /// A viewer's pointer as 0 … 65535 over the guest's picture; the nearest edge
  /// for one on the bars.
  package func guestPosition(x: Int, y: Int) -> (x: UInt16, y: UInt16) {
    func scale(_ value: Int, _ start: Int, _ length: Int) -> UInt16 {
      let inside = max(0, min(length - 1, value - start))
      return UInt16(clamping: length > 1 ? (inside * 65535 + (length - 1) / 2) / (length - 1) : 0)
    }
    return (scale(x, area.x, area.width), scale(y, area.y, area.height))
  }

  /// The frame's pixels that show `damage` of the picture.
  package func frameRegion(_ damage: Region) -> Region {
    if !isScaled { return damage.translated(x: area.x, y: area.y) }
    // One more around, for the filter.
    return Region(
      damage.rects.map { rect in
        let left = (rect.x - 1) * area.width / pictureWidth - 1
        let top = (rect.y - 1) * area.height / pictureHeight - 1
        let right = (rect.x + rect.width + 1) * area.width / pictureWidth + 2
        let bottom = (rect.y + rect.height + 1) * area.height / pictureHeight + 2
        return Rect(x: area.x + left, y: area.y + top, width: right - left, height: bottom - top)
      }
    ).intersection(area)
  }
}

/// A picture fitted into a frame of another size.
final class FittedPicture {
  let viewport: Viewport
  let fitted: Frame
  private let picture: Frame
  private let source: any PixelSource

  init(_ source: any PixelSource, _ viewport: Viewport) {
    self.source = source
    self.viewport = viewport
    fitted = Frame(width: viewport.frameWidth, height: viewport.frameHeight)
    picture = Frame(width: source.width, height: source.height)
  }

  /// Repaints what shows `damage`; returns the frame's region of it.
  func update(_ damage: Region) -> Region {
    let changed = picture.update(from: source, damage: damage)
    let region = viewport.frameRegion(changed)
    paint(region)
    return region
  }

  private func paint(_ region: Region) {
    let area = viewport.area
    // SAFETY: both frames outlive the images made over them here, and pixman stays
    // within the sides given, which are the frames' own.
    guard
      let from = pixman_image_create_bits_no_clear(
        PIXMAN_x8r8g8b8, Int32(picture.width), Int32(picture.height), picture.pixels,
        Int32(picture.width * 4))
    else { return }
    defer { pixman_image_unref(from) }
    guard
      let to = pixman_image_create_bits_no_clear(
        PIXMAN_x8r8g8b8, Int32(fitted.width), Int32(fitted.height), fitted.pixels,
        Int32(fitted.width * 4))
    else { return }
    defer { pixman_image_unref(to) }
    if viewport.isScaled {
      var transform = pixman_transform_t()
      pixman_transform_init_scale(
        &transform,
        pixman_fixed_t(picture.width * 65536 / area.width),
        pixman_fixed_t(picture.height * 65536 / area.height))
      pixman_image_set_transform(from, &transform)
      pixman_image_set_filter(from, PIXMAN_FILTER_GOOD, nil, 0)
      pixman_image_set_repeat(from, PIXMAN_REPEAT_PAD)
    }
    for rect in region.rects {
      pixman_image_composite32(
        PIXMAN_OP_SRC, from, nil, to, Int32(rect.x - area.x), Int32(rect.y - area.y), 0, 0,
        Int32(rect.x), Int32(rect.y), Int32(rect.width), Int32(rect.height))
    }
  }
}
