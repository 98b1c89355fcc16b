import Disk
import TestSupport
import LinuxSystem

/// Keeps an image in memory together with what was done to it, to find out what is left of
/// it when power goes.
final class RecordingStorage: ImageStorage {
  enum Operation: Sendable {
    case write(offset: Int, [UInt8])
    case punch(offset: Int, count: Int)
    case barrier
  }

  private struct State {
    var bytes: [UInt8]
    var log: [Operation] = []
    /// Operations that succeed yet; `nil` is no end.
    var budget: Int?

    mutating func spend() throws(SystemError) {
      guard let budget else { return }
      guard budget > 0 else { throw SystemError(code: 5, "write") }
      self.budget = budget - 1
    }
  }

  private let state: Guarded<State>
  private let interruption = Guarded<(@Sendable () -> Void)?>(nil)
  private let note: (@Sendable (Operation) -> Void)?
  private let pause: (@Sendable () -> Void)?
  let growsWithZeros = true

  /// - Parameters:
  ///   - note: told of each operation, as it is carried out.
  ///   - pause: called before each; others go on meanwhile.
  init(
    _ bytes: [UInt8] = [], note: (@Sendable (Operation) -> Void)? = nil,
    pause: (@Sendable () -> Void)? = nil
  ) {
    state = Guarded(State(bytes: bytes))
    self.note = note
    self.pause = pause
  }

  var log: [Operation] { state.withLock { $0.log } }
  var position: Int { state.withLock { $0.log.count } }
  var contents: [UInt8] { state.withLock { $0.bytes } }

  /// What is there now is durable, and nothing was recorded.
  func restart() { state.withLock { $0.log = [] } }

  /// Has writes fail after so many of them.
  func fail(after count: Int?) { state.withLock { $0.budget = count } }

  /// Does something else before the next transfer of data, once.
  func interrupt(_ body: @escaping @Sendable () -> Void) { interruption.withLock { $0 = body } }

  private func beInterrupted() {
    pause?()
    let body = interruption.withLock { body in
      defer { body = nil }
      return body
    }
    body?()
  }

  func size() -> UInt64 { state.withLock { UInt64($0.bytes.count) } }

  func grow(to size: UInt64) { state.withLock { $0.bytes.grow(to: Int(size)) } }

  func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64) -> Int {
    beInterrupted()
    return state.withLock { state in
      var place = Int(offset)
      var done = 0
      for buffer in buffers {
        let count = max(0, min(buffer.count, state.bytes.count - place))
        if count > 0 { buffer.copyBytes(from: state.bytes[place..<place + count]) }
        (place, done) = (place + count, done + count)
      }
      return done
    }
  }

  func write(_ buffers: [UnsafeRawBufferPointer], offset: UInt64) throws(SystemError) {
    beInterrupted()
    try state.withLock { state throws(SystemError) in
      try state.spend()
      let operation = Operation.write(offset: Int(offset), buffers.flatMap { Array($0) })
      state.bytes.apply(operation)
      state.log.append(operation)
      note?(operation)
    }
  }

  func punch(offset: UInt64, count: UInt64) -> Bool {
    state.withLock { state in
      let operation = Operation.punch(offset: Int(offset), count: Int(count))
      state.bytes.apply(operation)
      state.log.append(operation)
      note?(operation)
    }
    return true
  }

  func synchronize() throws(SystemError) {
    pause?()
    try state.withLock { state throws(SystemError) in
      try state.spend()
      state.log.append(.barrier)
      note?(.barrier)
    }
  }

  func unlock() {}
}

extension [UInt8] {
  mutating func grow(to size: Int) {
    if size > count { append(contentsOf: repeatElement(0, count: size - count)) }
  }

  mutating func apply(_ operation: RecordingStorage.Operation) {
    switch operation {
    case .write(let offset, let bytes):
      grow(to: offset + bytes.count)
      replaceSubrange(offset..<offset + bytes.count, with: bytes)
    case .punch(let offset, let size):
      for index in Swift.min(offset, count)..<Swift.min(count, offset + size) { self[index] = 0 }
    case .barrier: break
    }
  }
}

/// What may be left of a recording after power went at some point of it: everything before
/// the last barrier, and any sectors of what came after it.
struct PowerCut {
  private var durable: [UInt8]
  private var pending: [RecordingStorage.Operation] = []

  init(_ start: [UInt8]) { durable = start }

  mutating func advance(_ operation: RecordingStorage.Operation) {
    if case .barrier = operation {
      for operation in pending { durable.apply(operation) }
      pending = []
    } else {
      pending.append(operation)
    }
  }

  enum Survival {
    case nothing, everything, some
  }

  func contents(_ survival: Survival, using generator: inout SeededGenerator) -> [UInt8] {
    var bytes = durable
    for operation in pending {
      switch survival {
      case .nothing: continue
      case .everything: bytes.apply(operation)
      case .some:
        for sector in operation.sectors where Bool.random(using: &generator) {
          bytes.apply(sector)
        }
      }
    }
    return bytes
  }
}

extension RecordingStorage.Operation {
  /// What a disk does at once.
  fileprivate var sectors: [RecordingStorage.Operation] {
    switch self {
    case .barrier: []
    case .punch: [self]
    case .write(let offset, let bytes):
      stride(from: offset & ~511, to: offset + bytes.count, by: 512).map { start in
        let range = max(start, offset)..<min(start + 512, offset + bytes.count)
        return .write(
          offset: range.lowerBound,
          Array(bytes[range.lowerBound - offset..<range.upperBound - offset]))
      }
    }
  }
}
