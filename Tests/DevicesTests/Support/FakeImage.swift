import DeviceModel
import Testing

/// An image in memory whose requests complete when the test says so.
final class FakeImage: BlockBackend {
  var bytes: [UInt8]
  var isReadOnly = false
  var failure: BlockError?
  private(set) var flushes = 0
  private(set) var timesForgotten = 0
  private var pending: [() -> Void] = []

  /// Sectors of 512 bytes, each filled with its number's own pattern.
  init(sectors: Int) { bytes = FakeImage.sectors(0, sectors) }

  /// The first contents of a sector: its number, then a pattern.
  static func pattern(_ sector: Int) -> [UInt8] { sectors(sector, 1) }

  static func sectors(_ first: Int, _ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count * 512)
    for sector in first..<first + count {
      bytes += [UInt8(truncatingIfNeeded: sector), UInt8(truncatingIfNeeded: sector >> 8)]
      bytes += patterns[sector & 0xFF]
    }
    return bytes
  }

  private static let patterns: [[UInt8]] = (0..<256).map { sector in
    (2..<512).map { UInt8(truncatingIfNeeded: sector &* 31 &+ $0 &* 7 &+ $0 >> 8) }
  }

  /// A size beyond the bytes, for questions that read nothing.
  var sparseByteCount: UInt64?
  var byteCount: UInt64 { sparseByteCount ?? UInt64(bytes.count) }
  var pendingCount: Int { pending.count }

  /// Completes what is pending, and what that starts.
  func complete() {
    while !pending.isEmpty { pending.removeFirst()() }
  }

  /// Completes the oldest request alone.
  func completeOne() {
    if !pending.isEmpty { pending.removeFirst()() }
  }

  func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) {
    pending.append { [self] in
      if let failure { return completion(.failure(failure)) }
      guard offset + UInt64(count) <= byteCount else { return completion(.failure(outOfRange)) }
      completion(.success(Array(bytes[Int(offset)..<Int(offset) + count])))
    }
  }

  func read(
    offset: UInt64, count: Int, target: @escaping () -> GuestSpace?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    pending.append { [self] in
      if let failure { return completion(.failure(failure)) }
      guard offset + UInt64(count) <= byteCount else { return completion(.failure(outOfRange)) }
      guard let space = target() else { return }
      #expect(space.pieces.reduce(0) { $0 + $1.count } == count)
      space.copy(Array(bytes[Int(offset)..<Int(offset) + count]))
      completion(.success(()))
    }
  }

  func write(
    offset: UInt64, count: Int, source: @escaping () -> GuestBytes?,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    pending.append { [self] in
      guard let new = source()?.copy() else { return }
      #expect(new.count == count)
      write(offset: offset, bytes: new, completion: completion)
    }
  }

  func write(
    offset: UInt64, bytes new: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    pending.append { [self] in
      if let failure { return completion(.failure(failure)) }
      guard offset + UInt64(new.count) <= byteCount else {
        return completion(.failure(outOfRange))
      }
      bytes.replaceSubrange(Int(offset)..<Int(offset) + new.count, with: new)
      completion(.success(()))
    }
  }

  func forget() { timesForgotten += 1 }

  func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
    pending.append { [self] in
      flushes += 1
      completion(failure.map { .failure($0) } ?? .success(()))
    }
  }

  /// Ranges that were discarded, or zeroed with or without leave to discard.
  private(set) var cleared: [String] = []

  func discard(
    offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    pending.append { [self] in
      cleared.append("discard \(offset) \(count)")
      completion(failure.map { .failure($0) } ?? .success(()))
    }
  }

  func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    pending.append { [self] in
      if let failure { return completion(.failure(failure)) }
      cleared.append("zero \(offset) \(count) \(mayDiscard)")
      bytes.replaceSubrange(
        Int(offset)..<Int(offset + count), with: repeatElement(0, count: Int(count)))
      completion(.success(()))
    }
  }

  private var outOfRange: BlockError { BlockError(kind: .outOfRange, context: "beyond the end") }
}
