import DeviceModel
import LinuxSystem

/// A raw image or block device as a guest's disk or CD-ROM.
///
/// Requests queue up and are carried out in their order by one I/O thread of the
/// image's own; the vCPU that made them goes on. While the object lives the image
/// is locked against other VMMs: exclusively when it may be written, shared when
/// it is read-only.
public final class RawImage: BlockBackend {
  /// Runs `body` with the device lock held, before it returns. Called on the I/O
  /// thread, which holds no lock then.
  public typealias DeviceLock = @Sendable (_ body: () -> Void) -> Void

  /// What an image is used as; its size must be a whole number of sectors.
  public enum Use: Sendable {
    case disk
    case cdrom

    var sectorSize: Int { self == .disk ? 512 : 2048 }
  }

  public let path: String
  public let byteCount: UInt64
  public let isReadOnly: Bool
  let imageFile: ImageFile
  private let worker: Worker
  private let thread: Thread

  /// Opens the image and starts its thread.
  ///
  /// - Parameters:
  ///   - isReadOnly: always true for a CD-ROM.
  ///   - deviceLock: how completions are delivered.
  /// - Throws: `DiskError`, whose message names the image and what to do.
  public init(
    path: String, use: Use, isReadOnly: Bool, deviceLock: @escaping DeviceLock
  ) throws(DiskError) {
    let isReadOnly = isReadOnly || use == .cdrom
    let file = try ImageFile(path: path, isReadOnly: isReadOnly, sectorSize: use.sectorSize)
    let worker = Worker(file: file, deviceLock: deviceLock)
    do {
      thread = try Thread(name: "disk I/O") { worker.run() }
    } catch {
      throw DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
    self.worker = worker
    self.imageFile = file
    self.path = path
    self.isReadOnly = isReadOnly
    byteCount = file.byteCount
  }

  deinit { worker.stop() }

  /// Carries out what was asked for and stops: after it returns, no completion
  /// runs and the image is unlocked. Not under the device lock, which the last
  /// completions need.
  public func close() {
    retire()
    worker.unlock()
  }

  /// Carries out what was asked for and stops, the image left locked.
  func retire() {
    worker.stop()
    thread.join()
  }

  /// Carries out what was asked for and makes it durable. Not under the device lock, which
  /// completions need.
  public func synchronize() throws(DiskError) {
    let result = Guarded<Result<Void, BlockError>?>(nil)
    worker.add(.flush { answer in result.change { $0 = answer } })
    let answer = result.wait(until: { $0 != nil }) { $0 }
    if case .failure(let error) = answer {
      throw DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
  }

  public func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) {
    guard count >= 0, isWithin(offset, count) else {
      return worker.add(.refuse(outOfRange(offset, count)) { completion(.failure($0)) })
    }
    worker.add(.read(offset: offset, count: count, completion))
  }

  public func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard count >= 0, isWithin(offset, count) else {
      return worker.add(.refuse(outOfRange(offset, count)) { completion(.failure($0)) })
    }
    worker.add(.readInPlace(offset: offset, count: count, target, completion))
  }

  public func write(
    offset: UInt64, bytes: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard mayWrite(offset, bytes.count, completion) else { return }
    worker.add(.write(offset: offset, bytes: bytes, completion))
  }

  public func write(
    offset: UInt64, count: Int, source: @escaping () -> GuestBytes?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard mayWrite(offset, count, completion) else { return }
    worker.add(
      .writeInPlace(WriteInPlace(offset: offset, source: source, completion: completion)))
  }

  public func settle() { worker.settle() }

  public func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
    worker.add(.flush(completion))
  }

  public func discard(
    offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    clear(offset, count, .discard, completion)
  }

  public func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    clear(offset, count, mayDiscard ? .zeroSparsely : .zero, completion)
  }

  private func clear(
    _ offset: UInt64, _ count: UInt64, _ way: RangeClearing,
    _ completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    let length = Int(clamping: count)
    guard mayWrite(offset, length, completion) else { return }
    worker.add(.clear(offset: offset, count: UInt64(length), way, completion))
  }

  /// Has what may not be refused.
  private func mayWrite(
    _ offset: UInt64, _ count: Int, _ completion: @escaping (Result<Void, BlockError>) -> Void
  ) -> Bool {
    let error: BlockError
    if isReadOnly {
      error = BlockError(kind: .readOnly, context: "image \(path) is attached read-only")
    } else if count < 0 || !isWithin(offset, count) {
      error = outOfRange(offset, count)
    } else {
      return true
    }
    worker.add(.refuse(error) { completion(.failure($0)) })
    return false
  }

  private func isWithin(_ offset: UInt64, _ count: Int) -> Bool {
    offset <= byteCount && UInt64(count) <= byteCount - offset
  }

  private func outOfRange(_ offset: UInt64, _ count: Int) -> BlockError {
    BlockError(
      kind: .outOfRange,
      context: "image \(path): \(count) bytes at \(offset) are beyond its end at \(byteCount)")
  }
}

/// A request on its way to the I/O thread.
private enum Request {
  case read(offset: UInt64, count: Int, (Result<[UInt8], BlockError>) -> Void)
  case readInPlace(
    offset: UInt64, count: Int, () -> GuestSpace?, (Result<Void, BlockError>) -> Void)
  case write(offset: UInt64, bytes: [UInt8], (Result<Void, BlockError>) -> Void)
  case writeInPlace(WriteInPlace)
  case flush((Result<Void, BlockError>) -> Void)
  case clear(
    offset: UInt64, count: UInt64, RangeClearing, (Result<Void, BlockError>) -> Void)
  case refuse(BlockError, (BlockError) -> Void)
}

private struct WriteInPlace {
  let offset: UInt64
  /// `nil` for one that was taken back.
  let source: () -> GuestBytes?
  let completion: (Result<Void, BlockError>) -> Void
}

// SAFETY: the queue and its flags are touched under `lock` only; `buffer` and `finished` by the
// I/O thread only; completions, which belong to devices, are called under the device lock only.
private final class Worker: @unchecked Sendable {
  private let file: ImageFile
  private let deviceLock: RawImage.DeviceLock
  private let lock = Lock()
  private var queue: [Request] = []
  private var isStopping = false
  /// A request is reading or writing guest memory.
  private var isUsingGuest = false
  /// Completions that the I/O thread has not run yet: they wait for its next use of the
  /// device lock, or the end of the batch, and of storage for small writes beside them alone.
  private var finished: [() -> Void] = []
  /// The I/O thread's, for the bytes of one request after the other: fresh memory for each
  /// would cost more than the copy.
  private var buffer: [UInt8] = []
  private static let largestKeptBuffer = 512 << 10
  /// So much is copied from the page cache in less time than it takes to let go of the device
  /// lock and have it again.
  private static let mostUnderDeviceLock = 16 << 10
  /// Writes, and bytes, after which the guest is told of those that are done.
  private static let longestRun = 16
  private static let mostInRun = 128 << 10

  init(file: ImageFile, deviceLock: @escaping RawImage.DeviceLock) {
    self.file = file
    self.deviceLock = deviceLock
  }

  func add(_ request: Request) {
    lock.withLock {
      queue.append(request)
      lock.wakeAll()
    }
  }

  func stop() {
    lock.withLock {
      isStopping = true
      lock.wakeAll()
    }
  }

  /// Lets others have the image. After the thread has ended.
  func unlock() {
    // It fails only where the lock was lost already.
    try? file.descriptor.unlock()
  }

  /// The thread's life: until stopped and out of work.
  func run() {
    while true {
      lock.withLock { while queue.isEmpty && !isStopping { lock.wait() } }
      let batch = takeQueue()
      guard !batch.isEmpty else { return }
      var requests = batch[...]
      while let request = requests.popFirst() { carryOut(request, &requests) }
      finish()
    }
  }

  private func takeQueue() -> [Request] {
    lock.withLock {
      defer { queue = [] }
      return queue
    }
  }

  /// Waits until guest memory is not used.
  func settle() {
    lock.withLock { while isUsingGuest { lock.wait() } }
  }

  private func underDeviceLock(_ body: () -> Void) {
    deviceLock {
      for completion in finished { completion() }
      finished.removeAll(keepingCapacity: true)
      body()
    }
  }

  private func finish() {
    if !finished.isEmpty { underDeviceLock {} }
  }

  /// - Parameter others: those after it, of which some may be carried out, too.
  private func carryOut(_ request: Request, _ others: inout ArraySlice<Request>) {
    switch request {
    case .readInPlace(let offset, let count, let target, let completion):
      readInPlace(offset, count, target, completion)
    case .read(let offset, let count, let completion):
      finish()
      let result = read(offset, count)
      finished.append { completion(result) }
      dropLargeBuffer()
    case .write(let offset, let bytes, let completion):
      finish()
      let result = result("write") { () throws(SystemError) in try write(offset, bytes) }
      finished.append { completion(result) }
    case .writeInPlace(let first):
      writeRun(first, &others)
    case .flush(let completion):
      finish()
      let result = result("flush") { () throws(SystemError) in try file.descriptor.synchronize() }
      finished.append { completion(result) }
    case .clear(let offset, let count, let way, let completion):
      finish()
      let result = result("clear a range") { () throws(SystemError) in
        try way.carryOut(file.descriptor, offset: offset, count: count)
      }
      finished.append { completion(result) }
    case .refuse(let error, let completion):
      finished.append { completion(error) }
    }
  }

  /// What lies beyond the end of a file that shrank reads as zeros.
  private func read(_ offset: UInt64, _ count: Int) -> Result<[UInt8], BlockError> {
    var failure: SystemError?
    resizeBuffer(to: count)
    // SAFETY: the buffer is used only within the call.
    buffer.withUnsafeMutableBytes { bytes in
      do throws(SystemError) {
        let stored = try file.descriptor.read(into: bytes, offset: offset)
        UnsafeMutableRawBufferPointer(rebasing: bytes[stored...]).initializeMemory(
          as: UInt8.self, repeating: 0)
      } catch {
        failure = error
      }
    }
    return failure.map { .failure(blockError("read", $0)) } ?? .success(buffer)
  }

  /// What lies beyond the end of a file that shrank reads as zeros. The device asks `settle`
  /// before the guest may use the memory for something else.
  private func readInPlace(
    _ offset: UInt64, _ count: Int, _ target: () -> GuestSpace?,
    _ completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    var space: GuestSpace?
    underDeviceLock {
      guard let room = target() else { return }
      if count <= Self.mostUnderDeviceLock, readNow(room, offset) {
        completion(.success(()))
      } else {
        lock.withLock { isUsingGuest = true }
        space = room
      }
    }
    guard let space else { return }
    let result = result("read") { () throws(SystemError) in
      let stored = try file.descriptor.read(into: space.pieces, offset: offset)
      if stored < count { space.pieces.part(stored, count - stored).clear() }
    }
    endUseOfGuest()
    finished.append { completion(result) }
  }

  /// Copies what the page cache has; `false` when it does not have all.
  private func readNow(_ space: GuestSpace, _ offset: UInt64) -> Bool {
    var place = offset
    for piece in space.pieces {
      guard file.descriptor.readNow(into: piece, offset: place) else { return false }
      place += UInt64(piece.count)
    }
    return true
  }

  private func endUseOfGuest() {
    lock.withLock {
      isUsingGuest = false
      lock.wakeAll()
    }
  }

  /// Carries out a write and small ones that follow it between two uses of the device lock:
  /// to have it again costs more than they do. The device asks `settle` before the guest may
  /// use the memory for something else.
  private func writeRun(_ first: WriteInPlace, _ others: inout ArraySlice<Request>) {
    var run: [(write: WriteInPlace, bytes: GuestBytes)] = []
    underDeviceLock {
      // More came while others had the lock.
      others += takeQueue()
      var (next, count): (WriteInPlace?, Int) = (first, 0)
      while let write = next {
        if let bytes = write.source() {
          run.append((write, bytes))
          count += bytes.pieces.reduce(0) { $0 + $1.count }
        }
        guard run.count < Self.longestRun, count < Self.mostInRun,
          case .writeInPlace(let another)? = others.first
        else { break }
        others.removeFirst()
        next = another
      }
      if !run.isEmpty { lock.withLock { isUsingGuest = true } }
    }
    guard !run.isEmpty else { return }
    for (write, bytes) in run {
      let result = result("write") { () throws(SystemError) in
        try file.descriptor.write(bytes.pieces, offset: write.offset)
      }
      finished.append { write.completion(result) }
    }
    endUseOfGuest()
  }

  private func resizeBuffer(to count: Int) {
    if count < buffer.count {
      buffer.removeLast(buffer.count - count)
    } else if count > buffer.count {
      buffer.append(contentsOf: repeatElement(0, count: count - buffer.count))
    }
  }

  private func dropLargeBuffer() {
    if buffer.capacity > Self.largestKeptBuffer + 4096 { buffer = [] }
  }

  private func write(_ offset: UInt64, _ bytes: [UInt8]) throws(SystemError) {
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do throws(SystemError) {
        try file.descriptor.write(buffer, offset: offset)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }

  private func result(
    _ what: String, _ body: () throws(SystemError) -> Void
  ) -> Result<Void, BlockError> {
    do {
      return .success(try body())
    } catch {
      return .failure(blockError(what, error))
    }
  }

  private func blockError(_ what: String, _ error: SystemError) -> BlockError {
    BlockError(
      kind: error.kind == .noSpace ? .noSpace : .medium,
      context: "image \(file.path): \(what) failed: \(error)")
  }
}
