import DeviceModel
import LinuxSystem

/// An image that a machine has open as a disk.
public protocol DiskImage: BlockBackend {
  var path: String { get }

  /// Carries out what was asked for and makes it durable. Not under the device lock, which
  /// completions need.
  func synchronize() throws(DiskError)

  /// Carries out what was asked for and stops: after it returns, no completion runs and the
  /// image is unlocked. Not under the device lock, which the last completions need.
  func close()

  /// The image and what it is based on, from the top.
  var layers: [LayerDescription] { get }
}

/// A qcow2 image as a guest's disk: the engine behind the devices' port.
///
/// Threads of its own carry out requests side by side; completions run under the device lock.
public final class Qcow2Disk: DiskImage {
  public let path: String
  public let byteCount: UInt64
  public let isReadOnly: Bool
  let image: Qcow2Image
  private let workers: DiskWorkers
  private let isClosed = Guarded(false)

  /// Opens the image with what it is based on, and starts its thread.
  ///
  /// - Parameter deviceLock: how completions are delivered.
  /// - Throws: `DiskError`, whose message names the image and what to do.
  public convenience init(
    path: String, isReadOnly: Bool, _ policy: BackingPolicy,
    deviceLock: @escaping RawImage.DeviceLock
  ) throws(DiskError) {
    try self.init(
      try Qcow2Image.open(path, isReadOnly: isReadOnly, policy), deviceLock: deviceLock)
  }

  /// Starts the thread for an open image.
  init(_ image: Qcow2Image, deviceLock: @escaping RawImage.DeviceLock) throws(DiskError) {
    let path = image.path
    guard image.byteCount > 0, image.byteCount % 512 == 0 else {
      throw DiskError(
        kind: .oddSize,
        context: "image \(path) is a disk of \(image.byteCount) bytes, which is no number of"
          + " sectors; resize it with qemu-img resize")
    }
    self.image = image
    (self.path, isReadOnly, byteCount) = (path, image.isReadOnly, image.byteCount)
    do {
      workers = try DiskWorkers(deviceLock: deviceLock)
    } catch {
      throw DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
  }

  deinit { workers.stop() }

  public func synchronize() throws(DiskError) {
    workers.drain()
    try image.flush()
  }

  /// What a guest flushed is durable in any case.
  public func close() {
    retire()
    let isFirst = isClosed.withLock { isClosed in
      defer { isClosed = true }
      return !isClosed
    }
    if isFirst { try? image.close() }
  }

  /// Carries out what was asked for and stops, the image left as it is, and locked.
  func retire() { workers.retire() }

  public var layers: [LayerDescription] { image.layers }

  public func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) {
    workers.add(
      .work(
        { [image] () throws(BlockError) in
          guard count >= 0 else { throw BlockError(kind: .outOfRange, context: "\(count) bytes") }
          return try image.forDevice { image throws(DiskError) in
            try image.read(count, at: offset)
          }
        }, completion: completion))
  }

  public func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    transfer(
      count, isWrite: false, target, completion,
      check: { image throws(DiskError) in try image.checkRange(offset, count) },
      { image, space throws(DiskError) in try image.read(into: space.pieces, offset: offset) })
  }

  public func write(
    offset: UInt64, bytes: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    request(completion) { image throws(DiskError) in try image.write(bytes, at: offset) }
  }

  public func write(
    offset: UInt64, count: Int, source: @escaping () -> GuestBytes?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    transfer(
      count, isWrite: true, source, completion,
      check: { image throws(DiskError) in
        try image.checkWrite(offset, UInt64(clamping: count))
      }, { image, bytes throws(DiskError) in try image.write(from: bytes.pieces, offset: offset) })
  }

  /// - Parameter check: what it refuses is answered without looking for guest memory.
  private func transfer<Memory>(
    _ count: Int, isWrite: Bool, _ source: @escaping () -> Memory?,
    _ completion: @escaping (Result<Void, BlockError>) -> Void,
    check: (Qcow2Image) throws(DiskError) -> Void,
    _ body: @escaping (Qcow2Image, Memory) throws(DiskError) -> Void
  ) {
    do throws(BlockError) {
      try image.forDevice(check)
    } catch {
      return workers.add(.refusal(error, completion))
    }
    workers.add(
      .transfer(
        count, isWrite: isWrite, source,
        { [image] memory throws(BlockError) in
          try image.forDevice { image throws(DiskError) in try body(image, memory) }
        }, completion: completion))
  }

  public func settle() { workers.settle() }

  public func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
    request(completion) { image throws(DiskError) in try image.flush() }
  }

  public func discard(
    offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    request(completion) { image throws(DiskError) in
      try image.discard(offset: offset, count: count)
    }
  }

  public func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    request(completion) { image throws(DiskError) in
      try image.writeZeroes(offset: offset, count: count, mayDiscard: mayDiscard)
    }
  }

  private func request(
    _ completion: @escaping (Result<Void, BlockError>) -> Void,
    _ body: @escaping (Qcow2Image) throws(DiskError) -> Void
  ) {
    workers.add(
      .work(
        { [image] () throws(BlockError) in try image.forDevice(body) }, completion: completion))
  }
}

extension Qcow2Image {
  /// What fails is told as a device understands it.
  fileprivate func forDevice<Value>(
    _ body: (Qcow2Image) throws(DiskError) -> Value
  ) throws(BlockError) -> Value {
    do {
      return try body(self)
    } catch {
      let kind: BlockError.Kind =
        switch error.kind {
        case .noSpace: .noSpace
        case .readOnly: .readOnly
        case .outOfRange: .outOfRange
        default: .medium
        }
      throw BlockError(kind: kind, context: "\(error)")
    }
  }
}
