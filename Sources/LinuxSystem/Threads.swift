import CLinux
import Glibc

/// An operating-system thread, outside Swift's task pool.
public final class Thread: Sendable {
  private let handle: pthread_t
  private let start: Start
  private let isJoined = Guarded(false)

  /// Starts `body`.
  ///
  /// - Parameter name: at most 15 bytes are shown by ps and debuggers.
  public init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    let ready = Self.idle.withLock { $0.popLast() }
    if let ready { (handle, start) = ready } else { (handle, start) = try Self.make() }
    start.task.change { $0 = Task(name: name, body: body) }
  }

  /// Makes threads that do nothing until the next ones are started, which are these: for
  /// when starting them has to be quick. They block the signals that the caller does.
  public static func prepare(_ count: Int) throws(SystemError) {
    for _ in 0..<count {
      let thread = try make()
      idle.withLock { $0.append(thread) }
    }
  }

  /// Ends those that were made ahead and are not needed: each holds some 30 KiB.
  public static func dismissPrepared() {
    let rest = idle.withLock { idle in
      defer { idle = [] }
      return idle
    }
    for (handle, start) in rest {
      pthread_detach(handle)
      start.task.change { $0 = Task(name: "dismissed", body: {}) }
    }
  }

  private static let idle = Guarded<[(pthread_t, Start)]>([])

  private static func make() throws(SystemError) -> (pthread_t, Start) {
    let start = Start()
    var handle = pthread_t()
    // SAFETY: released by the new thread, or below when there is none.
    let argument = Unmanaged.passRetained(start)
    let result = pthread_create(
      &handle, nil,
      { argument in
        guard let argument else { return nil }
        // SAFETY: balances passRetained of the one who made this thread.
        let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
        start.run()
        return nil
      }, argument.toOpaque())
    guard result == 0 else {
      argument.release()
      throw SystemError(code: result, "start a thread")
    }
    return (handle, start)
  }

  /// Waits for its end. Call it once, from another thread.
  public func join() {
    isJoined.withLock { $0 = true }
    pthread_join(handle, nil)
  }

  /// Nobody can wait for it any more: its stack goes when it ends.
  deinit {
    if !isJoined.withLock({ $0 }) { pthread_detach(handle) }
  }

  /// Its number in the kernel, which it waits for until it runs; `nil` after it ended.
  public var kernelIdentifier: Int32? {
    start.identifier.wait(until: { $0 != 0 }) { $0 > 0 ? $0 : nil }
  }

  /// Interrupts whatever system call it is in, when `signal` was made
  /// interrupting. To a thread that has ended it does nothing.
  public func interrupt(_ signal: Signal) {
    start.whileRunning { identifier in
      _ = clinux_signal_thread(identifier, signal.number)
    }
  }

  private struct Task: Sendable {
    let name: String
    let body: @Sendable () -> Void
  }

  private final class Start: Sendable {
    let task = Guarded<Task?>(nil)
    /// 0 before it runs, -1 after it ended.
    let identifier = Guarded<Int32>(0)

    func run() {
      // Memory that this thread allocates comes from a place of its own, made at first use.
      Guarded(0).change { $0 += 1 }
      let task = task.wait(until: { $0 != nil }) { $0.take() }
      guard let task else { return }
      _ = clinux_set_thread_name(task.name)
      identifier.change { $0 = clinux_thread_id() }
      task.body()
      identifier.change { $0 = -1 }
    }

    func whileRunning(_ action: (Int32) -> Void) {
      identifier.withLock { if $0 > 0 { action($0) } }
    }
  }
}

/// A mutual-exclusion lock with a condition to wait for.
///
/// For state that is spread over many objects (a machine's devices); a single
/// value belongs in `Guarded`.
public final class Lock: @unchecked Sendable {
  // SAFETY: lives at a fixed address from init to deinit, as pthreads wants.
  fileprivate let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = ConditionVariable()

  public init() {
    pthread_mutex_init(mutex, nil)
  }

  deinit {
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
  }

  public func withLock<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }

  /// Releases the lock until `wakeAll`, or spuriously; lock held before and after.
  public func wait() {
    condition.wait(mutex)
  }

  /// As `wait`, but no later than `deadline` in `MonotonicClock.now` nanoseconds.
  public func wait(until deadline: UInt64) {
    condition.wait(mutex, until: deadline)
  }

  public func wakeAll() {
    condition.wakeAll()
  }
}

/// One more thing to wait for under a lock, so that its waiters are woken alone.
public final class Condition: Sendable {
  private let lock: Lock
  private let condition = ConditionVariable()

  public init(_ lock: Lock) {
    self.lock = lock
  }

  /// Releases the lock until `wakeAll`, or spuriously; lock held before and after.
  public func wait() {
    condition.wait(lock.mutex)
  }

  /// As `wait`, but no later than `deadline` in `MonotonicClock.now` nanoseconds.
  public func wait(until deadline: UInt64) {
    condition.wait(lock.mutex, until: deadline)
  }

  public func wakeAll() {
    condition.wakeAll()
  }

  /// Wakes one of them, if there are any: for when any would do.
  public func wakeOne() {
    condition.wakeOne()
  }
}

private final class ConditionVariable: @unchecked Sendable {
  // SAFETY: lives at a fixed address from init to deinit, as pthreads wants.
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(condition)
    condition.deallocate()
  }

  func wait(_ mutex: UnsafeMutablePointer<pthread_mutex_t>) {
    pthread_cond_wait(condition, mutex)
  }

  func wait(_ mutex: UnsafeMutablePointer<pthread_mutex_t>, until deadline: UInt64) {
    var time = timespec(
      tv_sec: Int(clamping: deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
    pthread_cond_timedwait(condition, mutex, &time)
  }

  func wakeAll() {
    pthread_cond_broadcast(condition)
  }

  func wakeOne() {
    pthread_cond_signal(condition)
  }
}

/// A value and the lock that guards it.
public final class Guarded<Value>: @unchecked Sendable {
  // SAFETY: the value is only ever reached with the lock held.
  private let lock = Lock()
  private var value: Value

  public init(_ value: sending Value) {
    self.value = value
  }

  public func withLock<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try lock.withLock { () throws(Failure) -> Result in try body(&value) }
  }

  /// Waits until `condition` holds, then runs `body` before anyone else can look.
  public func wait<Result>(
    until condition: (Value) -> Bool, _ body: (inout Value) -> Result
  ) -> Result {
    lock.withLock {
      while !condition(value) { lock.wait() }
      return body(&value)
    }
  }

  /// Changes the value and wakes those who wait for a condition.
  public func change<Result>(_ body: (inout Value) -> Result) -> Result {
    lock.withLock {
      defer { lock.wakeAll() }
      return body(&value)
    }
  }
}
