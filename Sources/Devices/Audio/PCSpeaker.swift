import DeviceModel

/// The loudspeaker on channel 2 of the interval timer: a square wave, while both the timer's
/// gate and the speaker are on.
package final class PCSpeaker: StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    /// Runs while it sounds.
    var clock: SampleClock?
    /// Where in the wave it is: ticks of the interval timer, times the rate.
    var phase: UInt64 = 0
  }

  private static let rate = 48000
  private static let timerFrequency: UInt64 = 1_193_182
  /// A quarter of what there is, as something that beeps among music.
  private static let amplitude: Int64 = 8192

  private let timer: any SpeakerTimer
  private let clock: any DeviceClock
  private let sink: any AudioSink
  private var pump: (any DeviceTimer)?
  private var state: State

  package init(
    timer: any SpeakerTimer, clock: any DeviceClock, sink: any AudioSink, state: State?
  ) {
    self.timer = timer
    self.clock = clock
    self.sink = sink
    self.state = state ?? State()
    pump = clock.makeTimer { [weak self] in self?.catchUp() }
    arm()
  }

  package func saveState() -> State { state }

  package func reset() { setOn(false) }

  /// Gate and speaker are on, or one of them is not.
  package func setOn(_ isOn: Bool) {
    guard isOn != (state.clock != nil) else { return }
    catchUp()
    state = State(clock: isOn ? SampleClock(rate: Self.rate, at: clock.now) : nil)
    if !isOn { sink.rest() }
    arm()
  }

  private func arm() {
    if state.clock != nil {
      pump?.arm(at: clock.now &+ AudioPace.longest)
    } else {
      pump?.cancel()
    }
  }

  /// The pitch may have changed meanwhile: programs that play tunes only reload the timer.
  private func catchUp() {
    guard let count = state.clock?.count(until: clock.now) else { return }
    if count > 0 {
      let reload = timer.reload == 0 ? 65_536 : UInt64(timer.reload)
      let period = reload * UInt64(Self.rate)
      state.phase %= period
      let frames = (0..<count).map { _ in
        let start = state.phase
        state.phase += Self.timerFrequency
        let sample = Self.level(from: start, to: state.phase, period)
        return AudioFrame(left: sample, right: sample)
      }
      sink.play(frames, rate: Self.rate)
    }
    arm()
  }

  /// The wave's mean between two places, so that a pitch between two samples is none of
  /// both, and one that nobody hears is silence.
  private static func level(from start: UInt64, to end: UInt64, _ period: UInt64) -> Int16 {
    let half = period / 2
    func high(_ place: UInt64) -> UInt64 { place / period * half + min(place % period, half) }
    let share = Int64(high(end) - high(start)) * 2 * amplitude / Int64(end - start)
    return Int16(clamping: share - amplitude)
  }
}
