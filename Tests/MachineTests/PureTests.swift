import DeviceModel
import Display
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
    schedule.looked(at: 1_000_000_000, .change)
    var now = schedule.next(after: 1_000_000_000)
    #expect(now - 1_000_000_000 == PollSchedule.whileChanging)
    var last: UInt64 = 0
    for _ in 0..<20 {
      schedule.looked(at: now, .stillness)
      let delay = schedule.next(after: now) - now
      #expect(delay >= last)
      (last, now) = (delay, now + delay)
    }
    #expect(last == PollSchedule.slowest)
    schedule.looked(at: now, .change)
    #expect(schedule.next(after: now) - now == PollSchedule.whileChanging)
  }

  @Test("input makes it look at once, and often for a while")
  func input() {
    var schedule = PollSchedule()
    for _ in 0..<20 { schedule.looked(at: 1_000_000_000, .stillness) }
    schedule.inputArrived(at: 1_010_000_000)
    #expect(schedule.next(after: 1_010_000_000) <= 1_010_000_000)
    schedule.looked(at: 1_010_000_000, .stillness)
    #expect(schedule.next(after: 1_010_000_000) - 1_010_000_000 == PollSchedule.afterInput)
    let over = 1_010_000_000 + PollSchedule.inputWindow
    schedule.looked(at: over, .stillness)
    #expect(schedule.next(after: over) - over > PollSchedule.afterInput)
  }

  @Test("a picture is still once nothing changed for a while and nobody typed")
  func still() {
    var schedule = PollSchedule()
    var now: UInt64 = 1_000_000_000
    schedule.inputArrived(at: now)
    for _ in 0..<20 { schedule.looked(at: now, .stillness) }
    #expect(!schedule.isStill(at: now))
    now += PollSchedule.inputWindow
    #expect(schedule.isStill(at: now))
    schedule.changeBegan(at: now)
    #expect(!schedule.isStill(at: now))
    #expect(schedule.next(after: now) - now == PollSchedule.whileChanging)
  }

  @Test("a picture that is being drawn is looked at again at once")
  func drawing() {
    var schedule = PollSchedule()
    schedule.looked(at: 1_000_000_000, .drawing)
    #expect(schedule.next(after: 1_000_000_000) - 1_000_000_000 == PollSchedule.whileDrawing)
    schedule.looked(at: 1_001_000_000, .stillness)
    #expect(schedule.next(after: 1_001_000_000) - 1_001_000_000 == PollSchedule.whileChanging)
  }

  @Test("a picture that nobody looked at for long is stale")
  func stale() {
    var schedule = PollSchedule()
    schedule.looked(at: 1_000_000_000, .change)
    #expect(!schedule.isStale(at: 1_000_000_001))
    #expect(schedule.isStale(at: 1_000_000_001 + PollSchedule.slowest))
  }
}

@Suite("What is kept back of a picture being drawn")
struct PictureHoldTests {
  private let area = 1024 * 768
  private let top = Region(Rect(x: 0, y: 0, width: 1024, height: 400))
  private let bottom = Region(Rect(x: 0, y: 400, width: 1024, height: 368))
  private let key = Region(Rect(x: 10, y: 500, width: 16, height: 32))

  @Test("an echoed key is shown at once")
  func small() {
    var hold = PictureHold()
    #expect(hold.take(key, area: area, at: 5) == key)
    #expect(!hold.isHolding)
  }

  @Test("halves of a picture are shown as one, once nothing more comes")
  func whole() {
    var hold = PictureHold()
    #expect(hold.take(top, area: area, at: 5).isEmpty)
    #expect(hold.take(bottom, area: area, at: 1_000_005).isEmpty)
    #expect(hold.isHolding)
    #expect(hold.take(Region(), area: area, at: 2_000_005) == top.union(bottom))
    #expect(!hold.isHolding)
    #expect(hold.take(Region(), area: area, at: 3_000_005).isEmpty)
  }

  @Test("small damage ends the wait and comes along")
  func smallAfterLarge() {
    var hold = PictureHold()
    #expect(hold.take(top, area: area, at: 5).isEmpty)
    #expect(hold.take(key, area: area, at: 1_000_005) == top.union(key))
  }

  @Test("a guest that draws without a pause is shown all the same")
  func bounded() {
    var hold = PictureHold()
    #expect(hold.take(top, area: area, at: 5).isEmpty)
    #expect(hold.take(top, area: area, at: 4 + PictureHold.longest).isEmpty)
    #expect(hold.take(bottom, area: area, at: 5 + PictureHold.longest) == top.union(bottom))
    #expect(hold.take(bottom, area: area, at: 6 + PictureHold.longest).isEmpty)
    #expect(hold.release() == bottom)
  }
}
