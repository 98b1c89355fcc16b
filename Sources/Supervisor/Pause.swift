import LinuxSystem

/// Time that passes on a thread of its own, where nothing tells of what is waited for.
struct Pause {
  private let timer: TimerDescriptor
  private let poller: Poller

  init() throws(SystemError) {
    timer = try TimerDescriptor()
    poller = try Poller()
    try poller.add(timer.descriptor, token: 0)
  }

  func wait(milliseconds: UInt64) throws(SystemError) {
    try timer.arm(at: MonotonicClock.now + milliseconds * 1_000_000)
    _ = try poller.wait()
    _ = timer.drain()
  }
}
