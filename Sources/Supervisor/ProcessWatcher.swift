import Glibc
import LinuxSystem
import Logging

/// Notices the end of processes, at once and without polling: one thread that waits
/// on pidfds, for children and for processes that an earlier `carreld` started.
package final class ProcessWatcher: Sendable {
  /// How a process ended; `nil` for one that is not our child, whose parent knows.
  typealias Handler = @Sendable (ChildProcess.Exit?) -> Void

  private struct Watch {
    let process: ProcessHandle
    let child: ChildProcess?
    let handler: Handler
  }

  private struct State {
    var watches: [UInt64: Watch] = [:]
    var nextToken: UInt64 = 1
    var isStopped = false
  }

  private static let wakeToken: UInt64 = 0

  private let poller: Poller
  private let wake: EventDescriptor
  private let state = Guarded(State())

  init() throws(SystemError) {
    poller = try Poller()
    wake = try EventDescriptor()
    try poller.add(wake.descriptor, token: Self.wakeToken)
    _ = try Thread(name: "process-watcher") { [poller, wake, state] in
      Self.run(poller, wake, state)
    }
  }

  deinit { stop() }

  /// Ends the thread. Processes run on, unwatched.
  package func stop() {
    state.withLock { $0.isStopped = true }
    wake.signal()
  }

  /// Calls `handler` once, on the watcher's thread, when the child has ended and was
  /// reaped. Throws when it cannot, or was stopped; the child is the caller's then.
  func watch(_ child: ChildProcess, _ handler: @escaping Handler) throws(SystemError) {
    try add(Watch(process: child.handle, child: child, handler: handler))
  }

  /// The same for a process that is no child of this one.
  func watch(_ process: ProcessHandle, _ handler: @escaping Handler) throws(SystemError) {
    try add(Watch(process: process, child: nil, handler: handler))
  }

  private func add(_ watch: Watch) throws(SystemError) {
    let token = try state.withLock { state throws(SystemError) in
      guard !state.isStopped else {
        throw SystemError(code: ESHUTDOWN, "watch process \(watch.process.identifier)")
      }
      defer { state.nextToken += 1 }
      state.watches[state.nextToken] = watch
      return state.nextToken
    }
    do {
      try poller.add(watch.process.descriptor, token: token)
    } catch {
      _ = state.withLock { $0.watches.removeValue(forKey: token) }
      throw error
    }
  }

  private static func run(_ poller: Poller, _ wake: EventDescriptor, _ state: Guarded<State>) {
    while !state.withLock({ $0.isStopped }) {
      guard let events = try? poller.wait() else {
        return state.withLock { $0.isStopped = true }
      }
      for event in events {
        if event.token == wakeToken {
          wake.drain()
          continue
        }
        let watch = state.withLock { $0.watches.removeValue(forKey: event.token) }
        guard let watch else { continue }
        poller.remove(watch.process.descriptor)
        watch.handler(watch.child.flatMap { try? $0.wait() })
      }
    }
  }
}
