/// Who waits for the end of which VMM. Belongs to the supervisor.
struct Departures {
  private struct Waiter {
    let token: UInt64
    let continuation: CheckedContinuation<Bool, Never>
  }

  private var waiters: [UInt64: Waiter] = [:]
  private var next: UInt64 = 1

  mutating func wait(
    for token: UInt64, _ continuation: CheckedContinuation<Bool, Never>
  ) -> UInt64 {
    defer { next += 1 }
    waiters[next] = Waiter(token: token, continuation: continuation)
    return next
  }

  mutating func happened(_ token: UInt64) {
    for (key, waiter) in waiters where waiter.token == token {
      waiters[key] = nil
      waiter.continuation.resume(returning: true)
    }
  }

  mutating func giveUp(_ key: UInt64) {
    waiters.removeValue(forKey: key)?.continuation.resume(returning: false)
  }
}
