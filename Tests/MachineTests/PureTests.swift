import Machine
import Testing

@Suite("Where RAM lies")
struct MemoryLayoutTests {
  @Test("RAM of up to 3 GiB is in one piece, the rest lies above 4 GiB")
  func split() {
    let small = MemoryLayoutMap(size: 512 << 20)
    #expect(small.low == 512 << 20)
    #expect(small.high == 0)
    let large = MemoryLayoutMap(size: 5 << 30)
    #expect(large.low == 3 << 30)
    #expect(large.high == 2 << 30)
    #expect(large.offset(of: 0x1_0000_0000, count: 1) == 3 << 30)
    #expect(large.offset(of: 0x1_7FFF_FFFF, count: 1) == (5 << 30) - 1)
  }

  @Test(
    "what leaves RAM, crosses a hole or wraps around is not RAM",
    arguments: [
      (0x9_FFFF, 2), (0xA_0000, 1), (0xB_FFFF, 2), (0xBFFF_FFFF, 2), (0xC000_0000, 1),
      (0xFFFF_FFFF, 2), (0x1_7FFF_FFFF, 2), (UInt64.max, 2), (0, -1), (0, Int.max),
    ] as [(UInt64, Int)])
  func outside(address: UInt64, count: Int) {
    #expect(MemoryLayoutMap(size: 5 << 30).offset(of: address, count: count) == nil)
  }

  @Test("nothing at all is RAM anywhere in it")
  func empty() {
    #expect(MemoryLayoutMap(size: 1 << 20).offset(of: 0x1000, count: 0) == 0x1000)
  }
}

@Suite("When to look at the screen")
struct PollScheduleTests {
  @Test("it looks again soon while the picture changes, ever later while it does not")
  func slowing() {
    var schedule = PollSchedule()
    schedule.looked(at: 1_000_000_000, sawChange: true)
    var now = schedule.next(after: 1_000_000_000)
    #expect(now - 1_000_000_000 == PollSchedule.whileChanging)
    var last: UInt64 = 0
    for _ in 0..<20 {
      schedule.looked(at: now, sawChange: false)
      let delay = schedule.next(after: now) - now
      #expect(delay >= last)
      (last, now) = (delay, now + delay)
    }
    #expect(last == PollSchedule.slowest)
    schedule.looked(at: now, sawChange: true)
    #expect(schedule.next(after: now) - now == PollSchedule.whileChanging)
  }

  @Test("input makes it look at once, and often for a while")
  func input() {
    var schedule = PollSchedule()
    for _ in 0..<20 { schedule.looked(at: 1_000_000_000, sawChange: false) }
    schedule.inputArrived(at: 1_010_000_000)
    #expect(schedule.next(after: 1_010_000_000) <= 1_010_000_000)
    schedule.looked(at: 1_010_000_000, sawChange: false)
    #expect(schedule.next(after: 1_010_000_000) - 1_010_000_000 == PollSchedule.afterInput)
    let over = 1_010_000_000 + PollSchedule.inputWindow
    schedule.looked(at: over, sawChange: false)
    #expect(schedule.next(after: over) - over > PollSchedule.afterInput)
  }

  @Test("a picture is still once nothing changed for a while and nobody typed")
  func still() {
    var schedule = PollSchedule()
    var now: UInt64 = 1_000_000_000
    schedule.inputArrived(at: now)
    for _ in 0..<20 { schedule.looked(at: now, sawChange: false) }
    #expect(!schedule.isStill(at: now))
    now += PollSchedule.inputWindow
    #expect(schedule.isStill(at: now))
    schedule.changeBegan(at: now)
    #expect(!schedule.isStill(at: now))
    #expect(schedule.next(after: now) - now == PollSchedule.whileChanging)
  }

  @Test("a picture that nobody looked at for long is stale")
  func stale() {
    var schedule = PollSchedule()
    schedule.looked(at: 1_000_000_000, sawChange: true)
    #expect(!schedule.isStale(at: 1_000_000_001))
    #expect(schedule.isStale(at: 1_000_000_001 + PollSchedule.slowest))
  }
}
