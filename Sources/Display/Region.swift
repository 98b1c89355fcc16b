import CPixman
import DeviceModel

/// A set of pixels, kept as disjoint rectangles: what changed, what a viewer
/// asked for, what went out lossy.
///
/// A value: copies share storage until one of them changes.
public struct Region: Sendable {
  // SAFETY: the storage is written only while one value holds the sole reference
  // (`uniqueStorage`), so values on different threads never write shared storage.
  private final class Storage: @unchecked Sendable {
    let pixels = UnsafeMutablePointer<pixman_region32_t>.allocate(capacity: 1)

    init() {
      pixman_region32_init(pixels)
    }

    init(copying other: Storage) {
      pixman_region32_init(pixels)
      pixman_region32_copy(pixels, other.pixels)
    }

    deinit {
      pixman_region32_fini(pixels)
      pixels.deallocate()
    }
  }

  private var storage: Storage

  /// The empty region.
  public init() {
    storage = Storage()
  }

  public init(_ rect: Rect) {
    storage = Storage()
    formUnion(rect)
  }

  public init(_ rects: some Sequence<Rect>) {
    storage = Storage()
    for rect in rects { formUnion(rect) }
  }

  public var isEmpty: Bool { pixman_region32_not_empty(storage.pixels) == 0 }

  /// The smallest rectangle around everything; empty for the empty region.
  public var bounds: Rect {
    guard let box = pixman_region32_extents(storage.pixels)?.pointee else {
      return Rect(x: 0, y: 0, width: 0, height: 0)
    }
    return Rect(box)
  }

  /// Disjoint rectangles in bands from top to bottom, left to right within one.
  public var rects: [Rect] {
    var count: Int32 = 0
    guard let boxes = pixman_region32_rectangles(storage.pixels, &count), count > 0 else {
      return []
    }
    // SAFETY: pixman returns `count` boxes that live until the region changes,
    // which it cannot while this value holds its storage.
    return UnsafeBufferPointer(start: boxes, count: Int(count)).map(Rect.init)
  }

  /// How many rectangles `rects` has.
  public var rectCount: Int { Int(pixman_region32_n_rects(storage.pixels)) }

  /// The number of pixels.
  public var area: Int {
    rects.reduce(0) { $0 &+ $1.width &* $1.height }
  }

  public func contains(x: Int, y: Int) -> Bool {
    pixman_region32_contains_point(
      storage.pixels, Int32(clamping: x), Int32(clamping: y), nil) != 0
  }

  public mutating func formUnion(_ rect: Rect) {
    guard let box = Self.box(rect) else { return }
    let own = uniqueStorage()
    pixman_region32_union_rect(own.pixels, own.pixels, box.x, box.y, box.width, box.height)
  }

  public mutating func formUnion(_ other: Region) {
    let own = uniqueStorage()
    pixman_region32_union(own.pixels, own.pixels, other.storage.pixels)
  }

  public mutating func formIntersection(_ other: Region) {
    let own = uniqueStorage()
    pixman_region32_intersect(own.pixels, own.pixels, other.storage.pixels)
  }

  public mutating func formIntersection(_ rect: Rect) {
    formIntersection(Region(rect))
  }

  public mutating func subtract(_ other: Region) {
    let own = uniqueStorage()
    pixman_region32_subtract(own.pixels, own.pixels, other.storage.pixels)
  }

  public mutating func subtract(_ rect: Rect) {
    subtract(Region(rect))
  }

  /// Moves every pixel.
  public mutating func translate(x: Int, y: Int) {
    pixman_region32_translate(
      uniqueStorage().pixels, Int32(Self.bounded(x)), Int32(Self.bounded(y)))
  }

  public mutating func removeAll() {
    storage = Storage()
  }

  public func union(_ other: Region) -> Region {
    var result = self
    result.formUnion(other)
    return result
  }

  public func intersection(_ other: Region) -> Region {
    var result = self
    result.formIntersection(other)
    return result
  }

  public func intersection(_ rect: Rect) -> Region {
    intersection(Region(rect))
  }

  public func subtracting(_ other: Region) -> Region {
    var result = self
    result.subtract(other)
    return result
  }

  public func translated(x: Int, y: Int) -> Region {
    var result = self
    result.translate(x: x, y: y)
    return result
  }

  /// The same region, or, when it has more than `limit` rectangles, a larger one
  /// that has not: its bands' bounds, or at last its own.
  public func simplified(toRects limit: Int) -> Region {
    guard rectCount > limit else { return self }
    var bands = Region()
    var open: Rect?
    for rect in rects {
      if let band = open, band.y == rect.y {
        open?.width = rect.x + rect.width - band.x
      } else {
        if let band = open { bands.formUnion(band) }
        open = rect
      }
    }
    if let band = open { bands.formUnion(band) }
    return bands.rectCount <= limit ? bands : Region(bounds)
  }

  private mutating func uniqueStorage() -> Storage {
    if !isKnownUniquelyReferenced(&storage) { storage = Storage(copying: storage) }
    return storage
  }

  /// Coordinates that pixman can add up without overflow; `nil` when empty.
  private static func box(_ rect: Rect)
    -> (x: Int32, y: Int32, width: UInt32, height: UInt32)?
  {
    let width = bounded(rect.width)
    let height = bounded(rect.height)
    guard width > 0 && height > 0 else { return nil }
    return (Int32(bounded(rect.x)), Int32(bounded(rect.y)), UInt32(width), UInt32(height))
  }

  private static func bounded(_ value: Int) -> Int {
    max(-1 << 24, min(1 << 24, value))
  }
}

extension Region: Equatable {
  public static func == (left: Region, right: Region) -> Bool {
    pixman_region32_equal(left.storage.pixels, right.storage.pixels) != 0
  }
}

extension Rect {
  fileprivate init(_ box: pixman_box32_t) {
    self.init(
      x: Int(box.x1), y: Int(box.y1), width: Int(box.x2) - Int(box.x1),
      height: Int(box.y2) - Int(box.y1))
  }
}
