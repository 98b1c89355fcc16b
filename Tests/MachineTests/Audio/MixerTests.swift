import DeviceModel
import Display
import Machine
import Testing

@Suite("Mixer")
struct MixerTests {
  private final class FakeOutput: AudioOutput {
    var frames: [AudioFrame] = []
    var isListening = true
    var rests = 0
    func write(_ frames: [AudioFrame]) { self.frames += frames }
    func rest() { rests += 1 }
  }

  /// Time that a test sets.
  private final class FakeClock: DeviceClock {
    private final class Timer: DeviceTimer {
      let deadline: UInt64? = nil
      func arm(at deadline: UInt64) {}
      func cancel() {}
    }

    var now: UInt64 = 5_000_000_000
    let wallClock: (seconds: Int64, nanoseconds: UInt32) = (0, 0)
    func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer { Timer() }
  }

  private final class Setting {
    let clock = FakeClock()
    let output = FakeOutput()
    let mixer: AudioMixer

    init() { mixer = AudioMixer(clock: clock, outputs: [output]) }

    func advance(milliseconds: UInt64) { clock.now += milliseconds * 1_000_000 }
  }

  private static func level(_ level: Int16, _ count: Int) -> [AudioFrame] {
    Array(repeating: AudioFrame(left: level, right: -level), count: count)
  }

  @Test("a voice alone passes unchanged, and its pauses leave no gap")
  func alone() {
    let setting = Setting()
    let voice = setting.mixer.makeVoice()
    let frames = (0..<960).map { AudioFrame(left: Int16($0), right: Int16(-$0)) }
    for start in stride(from: 0, to: 960, by: 96) {
      setting.advance(milliseconds: 2)
      voice.play(Array(frames[start..<start + 96]), rate: 48000)
      if start == 480 {
        voice.rest()
        setting.advance(milliseconds: 3000)
      }
    }
    #expect(setting.output.frames == frames)
  }

  @Test("voices are added up where they sound together, and clipped")
  func together() {
    let setting = Setting()
    let (music, beep) = (setting.mixer.makeVoice(), setting.mixer.makeVoice())
    setting.advance(milliseconds: 10)
    music.play(Self.level(20_000, 480), rate: 48000)
    // The other one begins five milliseconds later.
    setting.advance(milliseconds: 10)
    beep.play(Self.level(15_000, 240), rate: 48000)
    #expect(setting.output.frames.count == 480, "the first is waited for")
    music.play(Self.level(20_000, 480), rate: 48000)
    beep.rest()
    setting.advance(milliseconds: 10)
    music.play(Self.level(20_000, 480), rate: 48000)
    let mixed =
      Self.level(20_000, 720)
      + Array(repeating: AudioFrame(left: 32_767, right: -32_768), count: 240)
      + Self.level(20_000, 480)
    #expect(setting.output.frames == mixed)
  }

  @Test("those who listen hear it from then on, and are told of silence")
  func listeners() {
    let setting = Setting()
    let late = FakeOutput()
    late.isListening = false
    setting.mixer.add(late)
    let (first, second) = (setting.mixer.makeVoice(), setting.mixer.makeVoice())
    for round in 0..<4 {
      late.isListening = round >= 2
      setting.advance(milliseconds: 10)
      first.play(Self.level(Int16(round), 480), rate: 48000)
      second.play(Self.level(0, 480), rate: 48000)
    }
    #expect(setting.output.frames.count == 4 * 480)
    #expect(late.frames == Self.level(2, 480) + Self.level(3, 480))
    first.rest()
    #expect(late.rests == 0)
    second.rest()
    #expect(late.rests == 1)
    let heard = late.frames.count
    setting.mixer.remove(late)
    setting.advance(milliseconds: 10)
    first.play(Self.level(1, 480), rate: 48000)
    #expect(late.frames.count == heard && setting.output.frames.last?.left == 1)
  }

  @Test("what is played while nobody listens is not heard later")
  func unheard() {
    let setting = Setting()
    let voice = setting.mixer.makeVoice()
    setting.output.isListening = false
    setting.advance(milliseconds: 10)
    voice.play(Self.level(1, 480), rate: 48000)
    setting.output.isListening = true
    setting.advance(milliseconds: 10)
    voice.play(Self.level(2, 480), rate: 48000)
    #expect(setting.output.frames == Self.level(2, 480))
  }

  @Test("a voice that says nothing any more is not waited for without end")
  func stuck() {
    let setting = Setting()
    let (stuck, other) = (setting.mixer.makeVoice(), setting.mixer.makeVoice())
    stuck.play(Self.level(1, 48), rate: 48000)
    for _ in 0..<30 {
      setting.advance(milliseconds: 100)
      other.play(Self.level(2, 4800), rate: 48000)
    }
    #expect(setting.output.frames.count >= 2 * 48_000)
    // What it says late is still heard.
    stuck.play(Self.level(1, 48), rate: 48000)
    setting.mixer.finish()
    #expect(setting.output.frames.filter { $0.left == 3 }.count == 48)
  }

  @Test(
    "a tone of another rate keeps its pitch, its level and its length",
    arguments: [5512, 8000, 11_025, 22_050, 32_000, 44_100, 96_000, 176_400, 192_000])
  func rates(rate: Int) {
    let setting = Setting()
    let voice = setting.mixer.makeVoice()
    let frequency = 441.0
    let count = rate * 2
    let tone = (0..<count).map { index in
      let value = Int16(12_000 * Wave.sine(Double(index) * frequency / Double(rate)))
      return AudioFrame(left: value, right: value)
    }
    setting.advance(milliseconds: 2000)
    for start in stride(from: 0, to: count, by: 997) {
      voice.play(Array(tone[start..<min(start + 997, count)]), rate: rate)
    }
    let heard = setting.output.frames
    #expect(abs(heard.count - 96_000) <= 1)
    let part = heard.dropFirst(1000).prefix(48_000).map { Double($0.left) }
    #expect(Wave.purity(part, turnsPerSample: frequency / 48_000) > 0.999)
    let loudest = heard.map { Int($0.left) }.max() ?? 0
    #expect((11_400...12_300).contains(loudest))
  }
}

@Suite("Resampler")
struct ResamplerTests {
  @Test(
    "a tone keeps its pitch, its level and its length at a viewer's rate",
    arguments: [8000, 11_025, 22_050, 44_100, 96_000, 192_000])
  func tone(rate: Int) {
    let turns = 441.0 / 48_000
    let tone = (0..<48_000).map { index in
      let value = Int16(12_000 * Wave.sine(Double(index) * turns))
      return AudioFrame(left: value, right: -value)
    }
    var resampler = Resampler(from: 48_000, to: rate)
    let heard = stride(from: 0, to: tone.count, by: 959).flatMap { start in
      resampler.convert(Array(tone[start..<min(start + 959, tone.count)]))
    }
    #expect(abs(heard.count - rate) <= 4)
    // A hundred turns.
    let part = heard.dropFirst(1000).prefix(rate * 100 / 441).map { Double($0.left) }
    #expect(Wave.purity(part, turnsPerSample: 441.0 / Double(rate)) > 0.999)
    #expect((11_400...12_300).contains(heard.map { Int($0.left) }.max() ?? 0))
    #expect(heard.allSatisfy { abs(Int($0.left) + Int($0.right)) <= 1 })
  }
}

/// Arithmetic without a library for it.
enum Wave {
  /// Of turns, not of radians.
  static func sine(_ turns: Double) -> Double {
    var turn = turns - turns.rounded(.down)
    var sign = 1.0
    if turn >= 0.5 {
      turn -= 0.5
      sign = -1
    }
    let x = (turn > 0.25 ? 0.5 - turn : turn) * 2 * Double.pi
    let square = x * x
    return sign * x
      * (1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72))))
  }

  /// Correlation with the sine of a frequency, in whichever phase.
  static func purity(_ heard: [Double], turnsPerSample: Double) -> Double {
    var (inPhase, offPhase, power) = (0.0, 0.0, 0.0)
    for (index, value) in heard.enumerated() {
      let turns = Double(index) * turnsPerSample
      inPhase += value * sine(turns)
      offPhase += value * sine(turns + 0.25)
      power += value * value
    }
    return ((inPhase * inPhase + offPhase * offPhase) / power / Double(heard.count) * 2)
      .squareRoot()
  }
}
