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
/// Some threads of its own carry out requests side by side; completions run under the device
/// lock.
public final class Qcow2Disk: DiskImage {
  /// Data is in the page cache or on its way there, so that a few threads keep a disk busy.
  private static let threads = 4

  public let path: String
  public let byteCount: UInt64
  public let isReadOnly: Bool
  let image: Qcow2Image
  private let workers: Workers
  private let threads: [Thread]

  /// Opens the image with what it is based on, and starts its threads.
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

  /// Starts the threads for an open image.
  init(_ image: Qcow2Image, deviceLock: @escaping RawImage.DeviceLock) throws(DiskError) {
    let path = image.path
    guard image.byteCount > 0, image.byteCount % 512 == 0 else {
      throw DiskError(
        kind: .oddSize,
        context: "image \(path) is a disk of \(image.byteCount) bytes, which is no number of"
          + " sectors; resize it with qemu-img resize")
    }
    let workers = Workers(image: image, deviceLock: deviceLock)
    self.workers = workers
    self.image = image
    (self.path, isReadOnly, byteCount) = (path, image.isReadOnly, image.byteCount)
    do {
      threads = try (0..<Self.threads).map { _ throws(SystemError) in
        try Thread(name: "disk I/O") { workers.run() }
      }
    } catch {
      workers.stop()
      throw DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
  }

  deinit { workers.stop() }

  public func synchronize() throws(DiskError) { try workers.synchronize() }

  public func close() {
    retire()
    workers.close()
  }

  /// Carries out what was asked for and stops, the image left as it is, and locked.
  func retire() {
    workers.stop()
    for thread in threads { thread.join() }
  }

  public var layers: [LayerDescription] { image.layers }

  public func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) {
    workers.add { workers in
      let result = Result { () throws(BlockError) in
        guard count >= 0 else { throw BlockError(kind: .outOfRange, context: "\(count) bytes") }
        return try workers.image.forDevice { image throws(DiskError) in
          try image.read(count, at: offset)
        }
      }
      return { completion(result) }
    }
  }

  public func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    workers.add { workers in
      var isTakenBack = false
      let result = Result { () throws(BlockError) in
        try workers.image.forDevice { image throws(DiskError) in
          try image.checkRange(offset, count)
          guard let space = workers.borrow(target) else {
            isTakenBack = true
            return
          }
          defer { workers.giveBack() }
          try image.read(into: space.pieces, offset: offset)
        }
      }
      return { if !isTakenBack { completion(result) } }
    }
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
    workers.add { workers in
      var isTakenBack = false
      let result = Result { () throws(BlockError) in
        try workers.image.forDevice { image throws(DiskError) in
          try image.checkWrite(offset, UInt64(clamping: count))
          guard let bytes = workers.borrow(source) else {
            isTakenBack = true
            return
          }
          defer { workers.giveBack() }
          try image.write(from: bytes.pieces, offset: offset)
        }
      }
      return { if !isTakenBack { completion(result) } }
    }
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
    workers.add { workers in
      let result = Result { () throws(BlockError) in try workers.image.forDevice(body) }
      return { completion(result) }
    }
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

/// Carries out a request; what it returns is called under the device lock.
private typealias Request = (Workers) -> () -> Void

// SAFETY: the queue is touched under `lock` only; completions, which belong to devices, are
// called under the device lock only.
private final class Workers: @unchecked Sendable {
  let image: Qcow2Image
  private let deviceLock: RawImage.DeviceLock
  private let lock = Lock()
  private var requests: [Request] = []
  private var next = 0
  /// Requests that threads are at, completions included.
  private var underWay = 0
  /// Threads that read or write guest memory.
  private var borrowers = 0
  private var isStopping = false
  private var isClosed = false

  init(image: Qcow2Image, deviceLock: @escaping RawImage.DeviceLock) {
    self.image = image
    self.deviceLock = deviceLock
  }

  func add(_ request: @escaping Request) {
    lock.withLock {
      requests.append(request)
      lock.wakeAll()
    }
  }

  func stop() {
    lock.withLock {
      isStopping = true
      lock.wakeAll()
    }
  }

  /// After the threads have ended. What a guest flushed is durable in any case.
  func close() {
    let isFirst = lock.withLock {
      defer { isClosed = true }
      return !isClosed
    }
    if isFirst { try? image.close() }
  }

  /// Guest memory to use until `giveBack`.
  func borrow<Memory>(_ source: () -> Memory?) -> Memory? {
    var memory: Memory?
    deviceLock {
      memory = source()
      if memory != nil { lock.withLock { borrowers += 1 } }
    }
    return memory
  }

  func giveBack() {
    lock.withLock {
      borrowers -= 1
      lock.wakeAll()
    }
  }

  /// Device lock held: nobody borrows meanwhile.
  func settle() {
    lock.withLock { while borrowers > 0 { lock.wait() } }
  }

  func synchronize() throws(DiskError) {
    lock.withLock { while next < requests.count || underWay > 0 { lock.wait() } }
    try image.flush()
  }

  func run() {
    while let request = take() {
      let complete = request(self)
      deviceLock(complete)
      lock.withLock {
        underWay -= 1
        lock.wakeAll()
      }
    }
  }

  private func take() -> Request? {
    lock.withLock {
      while next == requests.count, !isStopping { lock.wait() }
      guard next < requests.count else { return nil }
      let request = requests[next]
      next += 1
      underWay += 1
      if next == requests.count {
        requests.removeAll(keepingCapacity: true)
        next = 0
      }
      return request
    }
  }
}
