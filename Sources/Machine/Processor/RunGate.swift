import LinuxSystem

/// Decides whether vCPU threads run, wait or end, and knows how many wait.
/// Owned by the device lock.
final class RunGate {
  private let lock: Lock
  private let changed: Condition
  private var members = 0
  private var parked = 0
  private var isOpen = false
  private var isEnded = false

  init(lock: Lock) {
    self.lock = lock
    changed = Condition(lock)
  }

  /// Called by each vCPU thread before it runs guest code; waits while closed.
  ///
  /// - Parameters:
  ///   - parking: called before a wait.
  ///   - passing: called before it returns `true`; nobody kicks an open gate, so a
  ///     kick that is still there then is a leftover.
  /// - Returns: whether to run; `false` ends the thread.
  func pass(parking: () -> Void, passing: () -> Void) -> Bool {
    lock.withLock {
      if !isOpen && !isEnded {
        parking()
        parked += 1
        changed.wakeAll()
        while !isOpen && !isEnded { changed.wait() }
        parked -= 1
      }
      if isOpen { passing() }
      return isOpen
    }
  }

  // MARK: Device lock held

  /// One more thread will call `pass` until it returns false.
  func join() {
    members += 1
  }

  func open() {
    isOpen = true
    changed.wakeAll()
  }

  /// Nobody passes any more; those inside come out when they are kicked.
  func close() {
    isOpen = false
  }

  func end() {
    isOpen = false
    isEnded = true
    changed.wakeAll()
  }

  var isClosed: Bool { !isOpen }

  /// Waits, releasing the lock, until all vCPU threads are parked.
  func waitUntilParked() {
    while parked < members && !isEnded { changed.wait() }
  }
}
