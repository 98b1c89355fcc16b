import DeviceModel
import LinuxSystem

/// A guest's disk, which can go over from one image to another while the guest runs.
///
/// What devices ask for goes to the image that it has, or waits while it is held. Devices
/// ask under the device lock, which so guards all of it.
// SAFETY: `image`, `isHeld` and `waiting` change under the device lock only, and `image` only
// by who alone may change the disk, so that others whom that one excludes may read it too.
public final class AttachedDisk: DiskImage, @unchecked Sendable {
  private(set) var image: any DiskImage
  public let byteCount: UInt64
  public let isReadOnly: Bool
  let deviceLock: RawImage.DeviceLock
  private var isHeld = false
  private var waiting: [(any DiskImage) -> Void] = []
  /// Held by whoever writes to the image without being asked by a device.
  private let copying = Lock()

  public init(_ image: any DiskImage, deviceLock: @escaping RawImage.DeviceLock) {
    self.image = image
    (byteCount, isReadOnly) = (image.byteCount, image.isReadOnly)
    self.deviceLock = deviceLock
  }

  /// A disk whose image is not known yet; what is asked for waits until it is.
  public init(
    byteCount: UInt64, isReadOnly: Bool, deviceLock: @escaping RawImage.DeviceLock
  ) {
    image = AbsentImage(byteCount: byteCount, isReadOnly: isReadOnly)
    (self.byteCount, self.isReadOnly) = (byteCount, isReadOnly)
    self.deviceLock = deviceLock
    isHeld = true
  }

  /// Gives such a disk its image, of the same size and as writable. Device lock held.
  public func connect(_ image: any DiskImage) { replaceImage(with: image) }

  public var path: String { image.path }
  public var layers: [LayerDescription] { image.layers }

  /// What is asked for from now on waits, and nobody copies. Not under the device lock.
  func hold() { copying.withLock { deviceLock { isHeld = true } } }

  /// For who cannot keep others from changing it. Not under the device lock.
  var presentImage: any DiskImage {
    var present: (any DiskImage)?
    deviceLock { present = image }
    return present ?? AbsentImage(byteCount: byteCount, isReadOnly: isReadOnly)
  }

  /// Writes to `image` as no device asked for; not under the device lock.
  ///
  /// - Returns: `nil` when the disk is held, or has another image.
  func whileNotHeld<Result>(
    with image: any DiskImage, _ body: () throws(DiskError) -> Result
  ) throws(DiskError) -> Result? {
    try copying.withLock { () throws(DiskError) in
      var isFree = false
      deviceLock { isFree = !isHeld && self.image === image }
      return isFree ? try body() : nil
    }
  }

  /// What waits goes to the image. Device lock held.
  func letGo() {
    isHeld = false
    let requests = waiting
    waiting = []
    for request in requests { request(image) }
  }

  /// Has another image, which reads the same, from now on. Device lock held.
  func replaceImage(with image: any DiskImage) {
    self.image = image
    letGo()
  }

  private func ask(_ request: @escaping (any DiskImage) -> Void) {
    if isHeld { waiting.append(request) } else { request(image) }
  }

  public func synchronize() throws(DiskError) { try image.synchronize() }

  public func close() {
    deviceLock { letGo() }
    image.close()
  }

  public func settle() { image.settle() }

  public func forget() {
    waiting = []
    image.forget()
  }

  public func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) {
    ask { $0.read(offset: offset, count: count, completion: completion) }
  }

  public func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    ask { $0.read(offset: offset, count: count, target: target, completion: completion) }
  }

  public func write(
    offset: UInt64, bytes: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    ask { $0.write(offset: offset, bytes: bytes, completion: completion) }
  }

  public func write(
    offset: UInt64, count: Int, source: @escaping () -> GuestBytes?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    ask { $0.write(offset: offset, count: count, source: source, completion: completion) }
  }

  public func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
    ask { $0.flush(completion: completion) }
  }

  public func discard(
    offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    ask { $0.discard(offset: offset, count: count, completion: completion) }
  }

  public func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    ask {
      $0.writeZeroes(
        offset: offset, count: count, mayDiscard: mayDiscard, completion: completion)
    }
  }
}
