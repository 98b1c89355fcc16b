import DeviceModel
import Disk

/// Time that stands still until a test moves it.
final class HandClock: DeviceClock {
  private final class Timer: DeviceTimer {
    var deadline: UInt64?
    let fire: () -> Void

    init(_ fire: @escaping () -> Void) { self.fire = fire }

    func arm(at deadline: UInt64) { self.deadline = deadline }
    func cancel() { deadline = nil }
  }

  private(set) var now: UInt64 = 1_000_000_000
  let wallClock: (seconds: Int64, nanoseconds: UInt32) = (0, 0)
  private var timers: [Timer] = []

  var nextDeadline: UInt64? { timers.compactMap(\.deadline).min() }

  func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer {
    let timer = Timer(fire)
    timers.append(timer)
    return timer
  }

  /// Lets time pass, firing what falls due at its time.
  func pass(milliseconds: UInt64) {
    let end = now + milliseconds * 1_000_000
    while let deadline = nextDeadline, deadline <= end {
      now = max(now, deadline)
      for timer in timers where timer.deadline == deadline {
        timer.deadline = nil
        timer.fire()
      }
    }
    now = end
  }
}

/// Writes down what it is asked for, and completes it when the test says so.
final class JournalImage: DiskImage {
  let path = "journal"
  let byteCount: UInt64 = 1 << 30
  let isReadOnly = false
  let layers: [LayerDescription] = []
  private(set) var journal: [String] = []
  private var pending: [() -> Void] = []

  /// What was written down since it was asked last.
  func take() -> [String] {
    defer { journal = [] }
    return journal
  }

  func complete() {
    let completions = pending
    pending = []
    for completion in completions { completion() }
  }

  func read(
    offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
  ) {
    journal.append("read \(offset)")
    pending.append { completion(.success(Array(repeating: 0, count: count))) }
  }

  func write(
    offset: UInt64, bytes: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    journal.append("write \(offset)")
    pending.append { completion(.success(())) }
  }

  func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
    journal.append("flush")
    pending.append { completion(.success(())) }
  }

  func discard(
    offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    journal.append("discard \(offset)")
    pending.append { completion(.success(())) }
  }

  func writeZeroes(
    offset: UInt64, count: UInt64, mayDiscard: Bool,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) {
    journal.append("zero \(offset)")
    pending.append { completion(.success(())) }
  }

  func settle() { journal.append("settle") }
  func forget() { journal.append("forget") }
  func synchronize() { journal.append("synchronize") }
  func close() { journal.append("close") }
}
