/// One wire into an interrupt controller (PIC and IOAPIC together on a PC).
///
/// Called by devices under the device lock. Level semantics: the controller
/// decides whether it looks at edges. Setting the present level again is free.
public protocol InterruptLine: AnyObject {
  func setLevel(_ asserted: Bool)
}

/// Guest-physical RAM as a bus master sees it.
///
/// Called under the device lock. Each access is checked as a whole: one that
/// leaves RAM, or crosses the hole below 4 GiB, moves nothing.
public protocol GuestMemory: AnyObject {
  /// Copies guest RAM at `address` into `buffer`. An aligned number of 2, 4 or 8 bytes is
  /// read in one access, as processors may change it meanwhile.
  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(GuestMemoryError)

  /// Copies `buffer` to guest RAM at `address`, and marks those pages dirty. An aligned
  /// number of 2, 4 or 8 bytes is written in one access.
  func write(at address: UInt64, from buffer: UnsafeRawBufferPointer) throws(GuestMemoryError)

  /// RAM to be written in place, in pieces that follow each other. What is not written keeps
  /// its contents.
  func space(_ ranges: [(address: UInt64, count: Int)]) throws(GuestMemoryError) -> GuestSpace

  /// `space` was written, or may have been, and is not any more: those pages are dirty.
  func wrote(_ space: GuestSpace)

  /// RAM to be read in place, in pieces that follow each other.
  func inPlace(_ ranges: [(address: UInt64, count: Int)]) throws(GuestMemoryError) -> GuestBytes

  /// Gives RAM in whole pages of 4 KiB, whose contents nobody needs, back to the host: it
  /// costs nothing until it is touched again. Parts of pages at either end are kept.
  func release(at address: UInt64, count: Int) throws(GuestMemoryError)

  /// Whether an access of `count` bytes at `address` would succeed.
  func contains(_ address: UInt64, count: Int) -> Bool
}

extension UnsafeMutableRawBufferPointer {
  /// Copies as many bytes from `source`, those of an aligned number in one access. `memmove`
  /// makes no such promise: glibc's reads two bytes as one and then both.
  public func copyWhole(from source: UnsafeRawBufferPointer) {
    let isAligned = Int(bitPattern: source.baseAddress) & (source.count - 1) == 0
    switch source.count {
    case 2 where isAligned: storeBytes(of: source.load(as: UInt16.self), as: UInt16.self)
    case 4 where isAligned: storeBytes(of: source.load(as: UInt32.self), as: UInt32.self)
    case 8 where isAligned: storeBytes(of: source.load(as: UInt64.self), as: UInt64.self)
    default: copyMemory(from: source)
    }
  }
}

extension GuestMemory {
  /// For memory that is not mapped: a copy.
  public func inPlace(
    _ ranges: [(address: UInt64, count: Int)]
  ) throws(GuestMemoryError) -> GuestBytes {
    let copy = GuestBytes.Copy(size: ranges.reduce(0) { $0 + $1.count })
    var done = 0
    for range in ranges {
      // SAFETY: the ranges' sizes add up to the copy's.
      let part = UnsafeMutableRawBufferPointer(
        rebasing: copy.bytes[done..<done + range.count])
      try read(at: range.address, into: part)
      done += range.count
    }
    return GuestBytes(pieces: [UnsafeRawBufferPointer(copy.bytes)], owner: copy)
  }

  /// For memory that cannot be given back: it is zeroed only.
  public func release(at address: UInt64, count: Int) throws(GuestMemoryError) {
    guard contains(address, count: count) else {
      throw GuestMemoryError(address: address, count: count)
    }
    var page = (address + 4095) & ~4095
    let end = (address + UInt64(count)) & ~4095
    let zeros = [UInt8](repeating: 0, count: 4096)
    while page < end {
      // SAFETY: the buffer is used only within the call.
      let isMemory = zeros.withUnsafeBytes { buffer in
        do {
          try write(at: page, from: buffer)
          return true
        } catch {
          return false
        }
      }
      guard isMemory else { throw GuestMemoryError(address: page, count: zeros.count) }
      page += 4096
    }
  }

  /// For memory without holes: its first and last byte can be read.
  public func contains(_ address: UInt64, count: Int) -> Bool {
    guard count > 0 else { return true }
    let (last, wraps) = address.addingReportingOverflow(UInt64(count) - 1)
    guard !wraps else { return false }
    var byte: UInt8 = 0
    // SAFETY: the buffer is one byte that outlives the calls.
    return withUnsafeMutableBytes(of: &byte) { buffer in
      do {
        try read(at: address, into: buffer)
        try read(at: last, into: buffer)
        return true
      } catch {
        return false
      }
    }
  }
}

/// A bus-master access outside guest RAM.
public struct GuestMemoryError: Error, CustomStringConvertible, Sendable {
  public let address: UInt64
  public let count: Int

  public init(address: UInt64, count: Int) {
    self.address = address
    self.count = count
  }

  public var description: String {
    "guest-physical 0x\(String(address, radix: 16)), \(count) bytes, is not RAM"
  }
}

/// Time as the guest lives it.
public protocol DeviceClock: AnyObject {
  /// Nanoseconds since the machine was first powered on, not counting the time
  /// it was paused. Continues across restore.
  var now: UInt64 { get }

  /// UTC as seconds since 1970 and nanoseconds, for the real-time clock.
  var wallClock: (seconds: Int64, nanoseconds: UInt32) { get }

  /// A disarmed timer. `fire` runs on the machine's timer thread with the device
  /// lock held, at or soon after the deadline, never before; not while paused.
  func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer
}

/// One pending deadline of a device. Owned by the device lock.
public protocol DeviceTimer: AnyObject {
  /// The armed deadline in `DeviceClock.now` nanoseconds; `nil` when disarmed.
  var deadline: UInt64? { get }

  /// Arms or moves the timer; a deadline in the past fires at once, later, never
  /// from within this call.
  func arm(at deadline: UInt64)

  /// Disarms; after it returns the handler does not run for the old deadline.
  func cancel()
}

/// A disk or CD-ROM image, addressed in bytes.
///
/// Requests are asynchronous. `completion` runs exactly once, with the device
/// lock held, never from within the call that started the request. Requests may
/// complete out of order; `flush` covers the writes completed before it.
public protocol BlockBackend: AnyObject {
  /// Size in bytes.
  var byteCount: UInt64 { get }
  var isReadOnly: Bool { get }

  func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void)

  /// Reads to where the bytes are wanted in guest memory, without a copy in between.
  ///
  /// - Parameter target: called, device lock held, at most once, when the request's turn has
  ///   come, for room for its `count` bytes, which may be written until `completion` runs or
  ///   `settle` returns; not for a request that is refused. `nil` takes the request back:
  ///   nothing is read and `completion` does not run.
  func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void)
  func write(
    offset: UInt64, bytes: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void)
  /// Writes bytes from where they are in guest memory, without a copy in between.
  ///
  /// - Parameter source: called, device lock held, at most once, when the request's turn has
  ///   come, for its `count` bytes; not for a request that is refused. `nil` takes the request
  ///   back: nothing is written and `completion` does not run.
  func write(
    offset: UInt64, count: Int, source: @escaping () -> GuestBytes?,
    completion: @escaping (Result<Void, BlockError>) -> Void)
  /// Waits until what is under way, if anything, needs guest memory no more. Device lock held.
  func settle()
  /// The device took back all that it asked for. What was not begun need not be done, and its
  /// completion does not run. Device lock held.
  func forget()
  func flush(completion: @escaping (Result<Void, BlockError>) -> Void)

  /// Lets go of what is stored in a range, whose contents are undefined then.
  func discard(
    offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void)
  /// Makes a range read as zeros.
  ///
  /// - Parameter mayDiscard: whether the range's storage may be let go of.
  func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool,
    completion: @escaping (Result<Void, BlockError>) -> Void)
}

extension BlockBackend {
  /// Copies the bytes once they are there.
  public func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    read(offset: offset, count: count) { result in
      switch result {
      case .failure(let error): completion(.failure(error))
      case .success(let bytes):
        guard let space = target() else { return }
        space.copy(bytes)
        completion(.success(()))
      }
    }
  }

  /// Copies the bytes at once.
  public func write(
    offset: UInt64, count: Int, source: @escaping () -> GuestBytes?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    guard let bytes = source()?.copy() else { return }
    write(offset: offset, bytes: bytes, completion: completion)
  }

  /// For images that keep nothing of guest memory.
  public func settle() {}

  /// For images that begin everything at once.
  public func forget() {}
}

/// Why a block request failed.
public struct BlockError: Error, Sendable, CustomStringConvertible {
  public enum Kind: Sendable { case outOfRange, readOnly, noSpace, medium }

  public let kind: Kind
  public let context: String

  public init(kind: Kind, context: String) {
    self.kind = kind
    self.context = context
  }

  public var description: String { context }
}

/// A byte stream behind a serial port (terminal, socket, file).
public protocol CharacterBackend: AnyObject {
  /// Takes bytes from the guest. Never blocks; returns how many were accepted.
  func write(_ bytes: [UInt8]) -> Int

  /// Called with each batch of bytes for the guest, device lock held.
  var onReceive: (([UInt8]) -> Void)? { get set }

  /// How many bytes the device takes now. Asked, device lock held, before reading
  /// what is for the guest; once it was 0, `hasRoom` tells when to ask again.
  var room: (() -> Int)? { get set }

  /// The device, whose `room` was found to be 0, has room again. Device lock held;
  /// must not call back, nor block.
  func hasRoom()
}

/// A device whose whole state can be taken and given to a new instance.
///
/// `State` is versioned by its own stored `version` field. A device is always
/// constructed as `init(ports…, state: State?)`; `nil` means power-on reset.
public protocol StatefulDevice: AnyObject {
  associatedtype State: Codable & Sendable

  /// The complete state at this instant. Device lock held, vCPUs paused.
  func saveState() -> State

  /// Hard reset, as the chipset's reset line does.
  func reset()
}
