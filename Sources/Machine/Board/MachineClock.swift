import DeviceModel
import LinuxSystem

/// The guest's time, which stands still while the machine is stopped, and the
/// thread that fires timers. All state is owned by the device lock.
final class MachineClock: DeviceClock {
  private let lock: Lock
  private let changed: Condition
  /// Nanoseconds lived up to `since`.
  private var lived: UInt64
  /// When the clock was started last; `nil` while it stands.
  private var since: UInt64?
  private var armed: [MachineTimer] = []
  /// What the timer thread sleeps towards.
  private var sleepingUntil: UInt64 = .max
  private var isEnded = false

  init(lock: Lock, now: UInt64) {
    self.lock = lock
    changed = Condition(lock)
    lived = now
  }

  var now: UInt64 {
    guard let since else { return lived }
    return lived &+ (MonotonicClock.now &- since)
  }

  var wallClock: (seconds: Int64, nanoseconds: UInt32) { WallClock.now }

  func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer {
    MachineTimer(clock: self, fire: fire)
  }

  // MARK: For the machine, device lock held

  func start() {
    guard since == nil else { return }
    since = MonotonicClock.now
    changed.wakeAll()
  }

  func stop() {
    lived = now
    since = nil
  }

  func end() {
    isEnded = true
    changed.wakeAll()
  }

  /// The body of the timer thread.
  func run() {
    lock.withLock {
      while !isEnded {
        guard let since, let next = armed.min(by: { $0.target < $1.target }) else {
          sleepingUntil = .max
          changed.wait()
          continue
        }
        if next.target <= now {
          remove(next)
          next.expire()
        } else {
          sleepingUntil = next.target
          changed.wait(until: since &+ (next.target &- lived))
        }
      }
    }
  }

  // MARK: For timers

  fileprivate func insert(_ timer: MachineTimer) {
    if !armed.contains(where: { $0 === timer }) { armed.append(timer) }
    if timer.target < sleepingUntil { changed.wakeAll() }
  }

  fileprivate func remove(_ timer: MachineTimer) {
    armed.removeAll { $0 === timer }
  }
}

final class MachineTimer: DeviceTimer {
  private unowned let clock: MachineClock
  private let fire: () -> Void
  private(set) var deadline: UInt64?
  fileprivate var target: UInt64 { deadline ?? .max }

  fileprivate init(clock: MachineClock, fire: @escaping () -> Void) {
    self.clock = clock
    self.fire = fire
  }

  func arm(at deadline: UInt64) {
    self.deadline = deadline
    clock.insert(self)
  }

  func cancel() {
    deadline = nil
    clock.remove(self)
  }

  fileprivate func expire() {
    deadline = nil
    fire()
  }
}
