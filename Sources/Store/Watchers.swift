import Brokering
import Synchronization

/// Who is to be told of changes.
final class Watchers: Sendable {
  private struct State {
    var next = 0
    var streams: [Int: (prefix: String, continuation: AsyncStream<StoreChange>.Continuation)] = [:]
    var finished = false
  }

  private let state = Mutex(State())

  func add(prefix: String, _ continuation: AsyncStream<StoreChange>.Continuation) {
    let id: Int? = state.withLock { state in
      guard !state.finished else { return nil }
      state.next += 1
      state.streams[state.next] = (prefix, continuation)
      return state.next
    }
    guard let id else { return continuation.finish() }
    continuation.onTermination = { [weak self] _ in
      self?.state.withLock { $0.streams[id] = nil }
    }
  }

  func publish(_ changes: [StoreChange]) {
    guard !changes.isEmpty else { return }
    let streams = state.withLock { Array($0.streams.values) }
    for (prefix, continuation) in streams {
      for change in changes where change.key.hasPrefix(prefix) { continuation.yield(change) }
    }
  }

  func finish() {
    let streams = state.withLock { state in
      state.finished = true
      defer { state.streams = [:] }
      return Array(state.streams.values)
    }
    for (_, continuation) in streams { continuation.finish() }
  }
}
