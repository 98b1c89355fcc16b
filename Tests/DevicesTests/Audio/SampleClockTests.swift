import Devices
import Testing

@Suite("Counting frames")
struct SampleClockTests {
  @Test("loses none over an hour, however the time is cut", arguments: [8000, 44_100, 192_000])
  func exact(rate: Int) {
    var clock = SampleClock(rate: rate, at: 5)
    var now: UInt64 = 5
    var count = 0
    while now < 3_600_000_000_005 {
      now = min(now + 333_333_333, 3_600_000_000_005)
      count += clock.count(until: now)
    }
    #expect(count == 3600 * rate)
    #expect(clock.count(until: now) == 0)
  }

  @Test("makes up for no more than ten seconds after a long absence, and goes on exactly")
  func absence() {
    var clock = SampleClock(rate: 48000, at: 0)
    let day: UInt64 = 86_400_000_000_000
    #expect(clock.count(until: day) == 480_000)
    #expect(clock.count(until: day + 1_000_000_000) == 48000)
    #expect(clock.time(after: 48) == day + 1_001_000_000)
  }
}
