import LinuxSystem
import Testing

@Suite("Threads")
struct ThreadTests {
  @Test("those that were made ready run what they are given, once, and are joined")
  func prepared() throws {
    try Thread.prepare(3)
    let ran = Guarded<[Int]>([])
    let threads = try (0..<5).map { number in
      try Thread(name: "number \(number)") { ran.withLock { $0.append(number) } }
    }
    for thread in threads { thread.join() }
    #expect(ran.withLock { $0.sorted() } == [0, 1, 2, 3, 4])
    #expect(threads.allSatisfy { $0.kernelIdentifier == nil })
  }

  @Test("those that were made ready and are not needed end")
  func dismissed() throws {
    func threads() throws -> Int {
      let status = String(decoding: try Files.read("/proc/self/status"), as: UTF8.self)
      let line = status.split(separator: "\n").first { $0.hasPrefix("Threads:") }
      return Int(line?.split(separator: "\t").last ?? "") ?? 0
    }
    let before = try threads()
    try Thread.prepare(100)
    #expect(try threads() >= before + 100)
    Thread.dismissPrepared()
    let deadline = MonotonicClock.now + 60_000_000_000
    while try threads() > before + 50, MonotonicClock.now < deadline {
      _ = try Poller().wait(milliseconds: 10)
    }
    #expect(try threads() <= before + 50)
  }

  @Test("those that nobody waits for leave nothing behind, before their end or after")
  func detached() throws {
    /// Mappings of this process: a thread's stack is two.
    func mappings() throws -> Int { try Files.read("/proc/self/maps").count { $0 == 0x0A } }
    let before = try mappings()
    for _ in 0..<1000 {
      let ended = Guarded(false)
      let thread = try Thread(name: "left alone") { ended.change { $0 = true } }
      ended.wait(until: { $0 }) { _ in }
      withExtendedLifetime(thread) {}
      _ = try Thread(name: "left alone") {}
    }
    let deadline = MonotonicClock.now + 60_000_000_000
    while try mappings() > before + 200, MonotonicClock.now < deadline {
      _ = try Poller().wait(milliseconds: 10)
    }
    #expect(try mappings() <= before + 200)
  }
}
