import DeviceModel
import LinuxSystem

/// A raw image or block device as a guest's disk or CD-ROM.
///
/// Threads of the image's own carry out requests side by side; the vCPU that made them goes
/// on. While the object lives the image is locked against other VMMs: exclusively when it may
/// be written, shared when it is read-only.
public final class RawImage: BlockBackend {
  /// Runs `body` with the device lock held, before it returns. Called on the I/O
  /// threads, which hold no lock then.
  public typealias DeviceLock = @Sendable (_ body: () -> Void) -> Void

  /// What an image is used as; its size must be a whole number of sectors.
  public enum Use: Sendable {
    case disk
    case cdrom

    var sectorSize: Int { self == .disk ? 512 : 2048 }
  }

  /// So much is copied from the page cache in less time than it takes to let go of the device
  /// lock and have it again.
  private static let mostUnderDeviceLock = 16 << 10

  public let path: String
  public let byteCount: UInt64
  public let isReadOnly: Bool
  let imageFile: ImageFile
  private let workers: DiskWorkers

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
    imageFile = try ImageFile(path: path, isReadOnly: isReadOnly, sectorSize: use.sectorSize)
    do {
      workers = try DiskWorkers(deviceLock: deviceLock)
    } catch {
      throw DiskError(kind: .inputOutput, context: "image \(path)", cause: error)
    }
    self.path = path
    self.isReadOnly = isReadOnly
    byteCount = imageFile.byteCount
  }

  deinit { workers.stop() }

  /// Carries out what was asked for and stops: after it returns, no completion
  /// runs and the image is unlocked. Not under the device lock, which the last
  /// completions need.
  public func close() {
    retire()
    // It fails only where the lock was lost already.
    try? imageFile.descriptor.unlock()
  }

  /// Carries out what was asked for and stops, the image left locked.
  func retire() { workers.retire() }

  /// Carries out what was asked for and makes it durable. Not under the device lock, which
  /// completions need.
  public func synchronize() throws(DiskError) {
    workers.drain()
    do {
      try imageFile.descriptor.synchronize()
    } catch {
      throw DiskError(
        kind: .inputOutput, context: "image \(path)", cause: imageFile.blockError("flush", error))
    }
  }

  public func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) {
    guard count >= 0, isWithin(offset, count) else {
      return refuse(outOfRange(offset, count), completion)
    }
    workers.add(
      .work(
        { [imageFile] () throws(BlockError) in try imageFile.read(count, at: offset) },
        completion: completion))
  }

  /// What the page cache has is copied at once.
  public func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard count >= 0, isWithin(offset, count) else {
      return refuse(outOfRange(offset, count), completion)
    }
    workers.add(
      .transfer(
        count, isWrite: false,
        { [imageFile] () -> GuestSpace? in
          guard let space = target() else { return nil }
          guard count <= Self.mostUnderDeviceLock, imageFile.readNow(space, offset) else {
            return space
          }
          completion(.success(()))
          return nil
        },
        { [imageFile] space throws(BlockError) in
          try imageFile.read(count, into: space, at: offset)
        }, completion: completion))
  }

  public func write(
    offset: UInt64, bytes: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard mayWrite(offset, bytes.count, completion) else { return }
    request(completion) { file throws(BlockError) in try file.write(bytes, at: offset) }
  }

  public func write(
    offset: UInt64, count: Int, source: @escaping () -> GuestBytes?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard mayWrite(offset, count, completion) else { return }
    workers.add(
      .transfer(
        count, isWrite: true, source,
        { [imageFile] bytes throws(BlockError) in try imageFile.write(bytes, at: offset) },
        completion: completion))
  }

  public func settle() { workers.settle() }

  public func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
    request(completion) { file throws(BlockError) in try file.flush() }
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
    request(completion) { file throws(BlockError) in
      try file.clear(offset: offset, count: UInt64(length), way)
    }
  }

  private func request(
    _ completion: @escaping (Result<Void, BlockError>) -> Void,
    _ body: @escaping (ImageFile) throws(BlockError) -> Void
  ) {
    workers.add(
      .work({ [imageFile] () throws(BlockError) in try body(imageFile) }, completion: completion))
  }

  private func refuse<Value>(
    _ error: BlockError, _ completion: @escaping (Result<Value, BlockError>) -> Void
  ) {
    workers.add(.refusal(error, completion))
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
    refuse(error, completion)
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

/// What devices ask for, of the file.
extension ImageFile {
  /// What lies beyond the end of a file that shrank reads as zeros.
  fileprivate func read(_ count: Int, at offset: UInt64) throws(BlockError) -> [UInt8] {
    var failure: SystemError?
    // SAFETY: all `count` bytes are initialised, by the kernel or here, unless it fails, and
    // then none are said to be.
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      let bytes = UnsafeMutableRawBufferPointer(
        rebasing: UnsafeMutableRawBufferPointer(buffer)[..<count])
      do throws(SystemError) {
        let stored = try descriptor.read(into: bytes, offset: offset)
        UnsafeMutableRawBufferPointer(rebasing: bytes[stored...]).initializeMemory(
          as: UInt8.self, repeating: 0)
        initialized = count
      } catch {
        failure = error
      }
    }
    if let failure { throw blockError("read", failure) }
    return bytes
  }

  /// The same, to guest memory.
  fileprivate func read(
    _ count: Int, into space: GuestSpace, at offset: UInt64
  ) throws(BlockError) {
    try attempt("read") { () throws(SystemError) in
      let stored = try descriptor.read(into: space.pieces, offset: offset)
      if stored < count { space.pieces.part(stored, count - stored).clear() }
    }
  }

  /// Copies what the page cache has; `false` when it does not have all.
  fileprivate func readNow(_ space: GuestSpace, _ offset: UInt64) -> Bool {
    var place = offset
    for piece in space.pieces {
      guard descriptor.readNow(into: piece, offset: place) else { return false }
      place += UInt64(piece.count)
    }
    return true
  }

  fileprivate func write(_ bytes: GuestBytes, at offset: UInt64) throws(BlockError) {
    try attempt("write") { () throws(SystemError) in
      try descriptor.write(bytes.pieces, offset: offset)
    }
  }

  fileprivate func write(_ bytes: [UInt8], at offset: UInt64) throws(BlockError) {
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do throws(SystemError) {
        try descriptor.write(buffer, offset: offset)
      } catch {
        failure = error
      }
    }
    if let failure { throw blockError("write", failure) }
  }

  fileprivate func flush() throws(BlockError) {
    try attempt("flush") { () throws(SystemError) in try descriptor.synchronize() }
  }

  fileprivate func clear(
    offset: UInt64, count: UInt64, _ way: RangeClearing
  ) throws(BlockError) {
    try attempt("clear a range") { () throws(SystemError) in
      try way.carryOut(descriptor, offset: offset, count: count)
    }
  }

  private func attempt(
    _ what: String, _ body: () throws(SystemError) -> Void
  ) throws(BlockError) {
    do {
      try body()
    } catch {
      throw blockError(what, error)
    }
  }

  fileprivate func blockError(_ what: String, _ error: SystemError) -> BlockError {
    BlockError(
      kind: error.kind == .noSpace ? .noSpace : .medium,
      context: "image \(path): \(what) failed: \(error)")
  }
}
