import DeviceModel
import Devices
import Testing

@Suite struct PCSpeakerTests {
  private final class FakeTimer: SpeakerTimer {
    var gate = false
    var output = false
    var reload: UInt16 = 1193
  }

  private final class Setting {
    let timer = FakeTimer()
    let clock: FakeClock
    let sink = FakeSink()
    let speaker: PCSpeaker

    init(state: PCSpeaker.State? = nil, now: UInt64 = 1_000_000_000) {
      clock = FakeClock(now: now)
      speaker = PCSpeaker(timer: timer, clock: clock, sink: sink, state: state)
    }

    /// How often the wave rises above zero.
    var periods: Int {
      zip(sink.frames, sink.frames.dropFirst()).count { $0.left < 0 && $1.left >= 0 }
    }
  }

  @Test("a tone has its pitch and length, and ends in silence", arguments: [440, 1000, 5000])
  func tone(frequency: Int) {
    let setting = Setting()
    setting.timer.reload = UInt16(1_193_182 / frequency)
    setting.speaker.setOn(true)
    setting.clock.advance(milliseconds: 1000)
    setting.speaker.setOn(false)
    #expect(setting.sink.frames.count == 48_000 && setting.sink.rests == 1)
    #expect(abs(setting.periods - frequency) <= frequency / 100 + 1)
    #expect(setting.sink.frames.map(\.left).max() == 8192)
    #expect(setting.sink.frames.allSatisfy { $0.left == $0.right && abs(Int($0.left)) <= 8192 })
    setting.clock.advance(milliseconds: 100)
    #expect(setting.sink.frames.count == 48_000 && setting.clock.nextDeadline == nil)
  }

  @Test("a program that only reloads the timer changes the pitch")
  func tune() {
    let setting = Setting()
    setting.speaker.setOn(true)
    setting.clock.advance(milliseconds: 200)
    let before = setting.periods
    setting.timer.reload = 596
    setting.sink.frames = []
    setting.clock.advance(milliseconds: 200)
    #expect(abs(before - 200) < 4 && abs(setting.periods - 400) < 6)
  }

  @Test("what nobody could hear is silent, and the longest period is one")
  func extremes() {
    let setting = Setting()
    setting.timer.reload = 2
    setting.speaker.setOn(true)
    setting.clock.advance(milliseconds: 100)
    #expect(setting.sink.frames.allSatisfy { abs(Int($0.left)) < 800 })
    setting.timer.reload = 0
    setting.sink.frames = []
    setting.clock.advance(milliseconds: 1000)
    #expect(abs(setting.periods - 18) <= 1)
  }

  @Test("a restored speaker goes on sounding")
  func restored() {
    let setting = Setting()
    setting.speaker.setOn(true)
    setting.clock.advance(milliseconds: 30)
    let twin = Setting(state: setting.speaker.saveState(), now: setting.clock.now)
    twin.clock.advance(milliseconds: 30)
    twin.speaker.setOn(false)
    #expect(setting.sink.frames.count + twin.sink.frames.count == 2880)
    twin.speaker.reset()
    #expect(twin.sink.rests == 1)
  }
}
