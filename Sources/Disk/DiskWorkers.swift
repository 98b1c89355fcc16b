import DeviceModel
import LinuxSystem

/// Carries out what devices ask of an image: some threads, requests side by side, completions
/// under the device lock.
///
/// One thread is there from the start; others come, once and for all, when more is asked for
/// than those that are idle can begin: a guest that asks for one thing after the other needs
/// one thread.
// SAFETY: all that changes is touched under `lock` only; completions, which belong to devices,
// are called under the device lock only.
final class DiskWorkers: @unchecked Sendable {
  /// Runs `body` with the device lock held, before it returns.
  typealias DeviceLock = @Sendable (_ body: () -> Void) -> Void

  /// What is to be done, in three steps.
  struct Request {
    /// Whether there is anything to do. Device lock held.
    var prepare: () -> Bool = { true }
    /// May be held up by storage. No lock held.
    let carryOut: () -> Void
    /// Device lock held.
    let complete: () -> Void
    /// Bytes of guest memory that it uses from `prepare` on; 0 for what uses none.
    var borrowed = 0
    /// Whether it writes what it borrows.
    var isWrite = false
  }

  /// Data is in the page cache or on its way there, so that a few threads keep a disk busy.
  private static let mostThreads = 4
  /// Requests, and bytes, of a run. To have the device lock once more costs more than they do.
  private static let longestRun = 16
  private static let mostInRun = 512 << 10

  private let deviceLock: DeviceLock
  private let lock = Lock()
  /// What idle threads wait for; those who wait for requests to end wait for `lock`.
  private let work: Condition
  private var requests = Queue()
  /// Those that write guest memory to the image. One thread at a time does that: a file system
  /// lets only one write to a file, and threads that wait for that use up processors.
  private var writes = Queue()
  private var isWriting = false
  private var threads: [Thread] = []
  private var idle = 0
  /// Requests that threads are at, completions included.
  private var underWay = 0
  /// Threads that read or write guest memory.
  private var borrowers = 0
  private var isStopping = false

  /// Starts the first thread. One that is not stopped lives for ever.
  init(deviceLock: @escaping DeviceLock) throws(SystemError) {
    self.deviceLock = deviceLock
    work = Condition(lock)
    try lock.withLock { () throws(SystemError) in try startThread() }
  }

  /// Asks for it. Device lock held or not.
  func add(_ request: Request) {
    lock.withLock {
      if request.isWrite { writes.append(request) } else { requests.append(request) }
      // Who writes goes on with what there is then.
      guard !request.isWrite || !isWriting else { return }
      if idle > 0 { work.wakeOne() }
      guard available > idle, threads.count < Self.mostThreads, !isStopping else { return }
      // Without it, those that are there do it.
      try? startThread()
    }
  }

  /// How many threads can begin something.
  private var available: Int { requests.count + (isWriting || writes.isEmpty ? 0 : 1) }

  private func startThread() throws(SystemError) {
    threads.append(try Thread(name: "disk I/O") { [self] in run() })
  }

  private func run() {
    var done: [Request] = []
    while var run = take(after: done) {
      let isWriting = run.first?.isWrite == true
      let count = run.count
      prepare(&run, completing: done)
      end(done.count + count - run.count)
      for request in run { request.carryOut() }
      giveBack(run, isWriting: isWriting)
      done = run
    }
  }

  /// What to do next: nothing as long as there are completions to tell of and nothing else.
  ///
  /// - Returns: `nil` at the end.
  private func take(after done: [Request]) -> [Request]? {
    let wasWriting = done.first?.isWrite == true
    return lock.withLock {
      while done.isEmpty, available == 0 {
        guard !isStopping else { return nil }
        idle += 1
        work.wait()
        idle -= 1
      }
      // A thread that writes goes on with that, unless it is alone.
      let othersFirst = wasWriting && threads.count == 1 && !requests.isEmpty
      let run = isWriting || othersFirst ? [] : takeWrites()
      isWriting = isWriting || !run.isEmpty
      let next = run.isEmpty ? requests.popFirst().map { [$0] } ?? [] : run
      underWay += next.count
      return next
    }
  }

  /// Small ones together.
  private func takeWrites() -> [Request] {
    var (run, size): ([Request], Int) = ([], 0)
    while run.count < Self.longestRun, size < Self.mostInRun, let write = writes.popFirst() {
      run.append(write)
      size += write.borrowed
    }
    return run
  }

  /// - Parameter run: left with those that there is something to do for.
  private func prepare(_ run: inout [Request], completing done: [Request]) {
    if done.isEmpty, run.allSatisfy({ $0.borrowed == 0 }) { return }
    deviceLock {
      for request in done { request.complete() }
      run.removeAll { !$0.prepare() }
      let count = run.count { $0.borrowed > 0 }
      if count > 0 { lock.withLock { borrowers += count } }
    }
  }

  private func giveBack(_ run: [Request], isWriting wasWriting: Bool) {
    let count = run.count { $0.borrowed > 0 }
    guard count > 0 || wasWriting else { return }
    lock.withLock {
      if wasWriting { isWriting = false }
      borrowers -= count
      lock.wakeAll()
    }
  }

  private func end(_ count: Int) {
    guard count > 0 else { return }
    lock.withLock {
      underWay -= count
      lock.wakeAll()
    }
  }

  // MARK: The end

  /// Ends the threads when they have carried out what was asked for. Not under the device
  /// lock, which the last completions need. A second time it does nothing.
  func retire() {
    let last = lock.withLock {
      isStopping = true
      work.wakeAll()
      defer { threads = [] }
      return threads
    }
    for thread in last { thread.join() }
  }

  /// Has them end, and does not wait.
  func stop() {
    lock.withLock {
      isStopping = true
      work.wakeAll()
    }
  }

  /// Returns when all that was asked for is done. Not under the device lock.
  func drain() {
    lock.withLock { while !requests.isEmpty || !writes.isEmpty || underWay > 0 { lock.wait() } }
  }

  // MARK: Guest memory

  /// Device lock held: nobody borrows meanwhile.
  func settle() {
    lock.withLock { while borrowers > 0 { lock.wait() } }
  }
}

extension DiskWorkers.Request {
  /// Moves bytes between guest memory and an image.
  ///
  /// - Parameters:
  ///   - source: finds the memory when its turn comes, device lock held; `nil` for what was
  ///     taken back.
  static func transfer<Memory>(
    _ count: Int, isWrite: Bool, _ source: @escaping () -> Memory?,
    _ body: @escaping (Memory) throws(BlockError) -> Void,
    completion: @escaping (Result<Void, BlockError>) -> Void
  ) -> Self {
    var memory: Memory?
    var result = Result<Void, BlockError>.success(())
    return Self(
      prepare: {
        memory = source()
        return memory != nil
      },
      carryOut: {
        guard let bytes = memory else { return }
        memory = nil
        result = Result { () throws(BlockError) in try body(bytes) }
      }, complete: { completion(result) }, borrowed: count, isWrite: isWrite)
  }

  /// All else.
  static func work<Value>(
    _ body: @escaping () throws(BlockError) -> Value,
    completion: @escaping (Result<Value, BlockError>) -> Void
  ) -> Self {
    var result: Result<Value, BlockError>?
    return Self(
      carryOut: { result = Result { () throws(BlockError) in try body() } },
      complete: { if let result { completion(result) } })
  }

  static func refusal<Value>(
    _ error: BlockError, _ completion: @escaping (Result<Value, BlockError>) -> Void
  ) -> Self {
    Self(carryOut: {}, complete: { completion(.failure(error)) })
  }
}

extension DiskWorkers {
  /// First in, first out.
  private struct Queue {
    private var items: [Request] = []
    private var first = 0

    var count: Int { items.count - first }
    var isEmpty: Bool { count == 0 }

    mutating func append(_ request: Request) { items.append(request) }

    mutating func popFirst() -> Request? {
      guard first < items.count else { return nil }
      let request = items[first]
      first += 1
      if first == items.count {
        items.removeAll(keepingCapacity: true)
        first = 0
      }
      return request
    }
  }
}
