import DeviceModel

/// A disk whose requests go no faster than its limits allow.
///
/// Those that have to wait do so in the order of their direction, and reads and writes take
/// turns. What changes without data counts as a write of no bytes; a flush waits for the writes
/// before it, but for no turn of its own. Time is the guest's: nothing goes while it stands.
/// All state is the device lock's. Without limits, requests are passed on as they come.
public final class ThrottledDisk: DiskImage {
  private struct Waiting {
    /// `nil` for what is not counted.
    let bytes: Int?
    let start: (any DiskImage) -> Void
  }

  private typealias Direction = RequestThrottle.Direction

  private let image: any DiskImage
  private let deviceLock: RawImage.DeviceLock
  private let clock: any DeviceClock
  private lazy var timer = clock.makeTimer { [weak self] in self?.startWaiting() }
  /// `nil` while nothing is limited; nothing waits then.
  private var throttle: RequestThrottle?
  private var reads: [Waiting] = []
  private var writes: [Waiting] = []
  /// Whose turn is next.
  private var turn = Direction.reading

  /// - Parameters:
  ///   - clock: the guest's; its timers fire under the device lock.
  ///   - deviceLock: which the caller need not hold here.
  public init(
    _ image: any DiskImage, limits: DiskLimits, clock: any DeviceClock,
    deviceLock: @escaping RawImage.DeviceLock
  ) {
    self.image = image
    self.clock = clock
    self.deviceLock = deviceLock
    if !limits.isUnlimited { throttle = RequestThrottle(limits, now: clock.now) }
  }

  public var path: String { image.path }
  public var byteCount: UInt64 { image.byteCount }
  public var isReadOnly: Bool { image.isReadOnly }
  public var layers: [LayerDescription] { image.layers }

  /// Device lock held. What waits is looked at again when they are changed.
  public var limits: DiskLimits {
    get { throttle?.limits ?? DiskLimits() }
    set {
      if newValue.isUnlimited {
        startAll()
        throttle = nil
      } else if throttle == nil {
        throttle = RequestThrottle(newValue, now: clock.now)
      } else {
        throttle?.change(to: newValue, now: clock.now)
        startWaiting()
      }
    }
  }

  // MARK: Requests

  public func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) {
    guard throttle != nil else {
      return image.read(offset: offset, count: count, completion: completion)
    }
    enqueue(.reading, bytes: count) {
      $0.read(offset: offset, count: count, completion: completion)
    }
  }

  public func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard throttle != nil else {
      return image.read(offset: offset, count: count, target: target, completion: completion)
    }
    enqueue(.reading, bytes: count) {
      $0.read(offset: offset, count: count, target: target, completion: completion)
    }
  }

  public func write(
    offset: UInt64, bytes: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard throttle != nil else {
      return image.write(offset: offset, bytes: bytes, completion: completion)
    }
    enqueue(.writing, bytes: bytes.count) {
      $0.write(offset: offset, bytes: bytes, completion: completion)
    }
  }

  public func write(
    offset: UInt64, count: Int, source: @escaping () -> GuestBytes?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard throttle != nil else {
      return image.write(offset: offset, count: count, source: source, completion: completion)
    }
    enqueue(.writing, bytes: count) {
      $0.write(offset: offset, count: count, source: source, completion: completion)
    }
  }

  public func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
    guard throttle != nil else { return image.flush(completion: completion) }
    enqueue(.writing, bytes: nil) { $0.flush(completion: completion) }
  }

  public func discard(
    offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard throttle != nil else {
      return image.discard(offset: offset, count: count, completion: completion)
    }
    enqueue(.writing, bytes: 0) {
      $0.discard(offset: offset, count: count, completion: completion)
    }
  }

  public func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard throttle != nil else {
      return image.writeZeroes(
        offset: offset, count: count, mayDiscard: mayDiscard, completion: completion)
    }
    enqueue(.writing, bytes: 0) {
      $0.writeZeroes(offset: offset, count: count, mayDiscard: mayDiscard, completion: completion)
    }
  }

  /// What waits has borrowed nothing yet.
  public func settle() { image.settle() }

  public func forget() {
    reads = []
    writes = []
    timer.cancel()
    image.forget()
  }

  // MARK: All at once, not under the device lock

  public func synchronize() throws(DiskError) {
    deviceLock { startAll() }
    try image.synchronize()
  }

  public func close() {
    deviceLock {
      startAll()
      throttle = nil
    }
    image.close()
  }

  // MARK: Waiting

  private func enqueue(
    _ direction: Direction, bytes: Int?, _ start: @escaping (any DiskImage) -> Void
  ) {
    let request = Waiting(bytes: bytes, start: start)
    switch direction {
    case .reading: reads.append(request)
    case .writing: writes.append(request)
    }
    startWaiting()
  }

  /// Starts what may go, and has the timer come back for the rest.
  private func startWaiting() {
    let now = clock.now
    var delay = startFirst(now)
    while delay == 0 { delay = startFirst(now) }
    guard let delay else { return timer.cancel() }
    timer.arm(at: now &+ delay)
  }

  /// Starts one request, if any may go.
  ///
  /// - Returns: nanoseconds to wait; `nil` when there is none.
  private func startFirst(_ now: UInt64) -> UInt64? {
    let first = turn
    let delay = start(first, now)
    if delay == 0 { return 0 }
    guard let other = start(first.other, now) else { return delay }
    return min(other, delay ?? other)
  }

  private func start(_ direction: Direction, _ now: UInt64) -> UInt64? {
    guard let request = direction == .reading ? reads.first : writes.first else { return nil }
    if let bytes = request.bytes {
      let delay = throttle?.delay(direction, now: now) ?? 0
      guard delay == 0 else { return delay }
      throttle?.count(direction, bytes: bytes)
      turn = direction.other
    }
    if direction == .reading { reads.removeFirst() } else { writes.removeFirst() }
    request.start(image)
    return 0
  }

  /// Lets all go that waits; it counts for what comes later.
  private func startAll() {
    for (direction, queue) in [(Direction.reading, reads), (.writing, writes)] {
      for request in queue {
        if let bytes = request.bytes { throttle?.count(direction, bytes: bytes) }
        request.start(image)
      }
    }
    reads = []
    writes = []
    timer.cancel()
  }
}
