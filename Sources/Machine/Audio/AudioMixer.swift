import DeviceModel
import Devices
import Display

/// Where a machine's sound leaves it. Called under the device lock; never blocks.
package protocol AudioOutput: AnyObject {
  /// Whether anybody hears what is written.
  var isListening: Bool { get }
  /// The next frames, at `AudioMixer.rate`.
  func write(_ frames: [AudioFrame])
  /// No device plays any more, until the next `write`.
  func rest()
}

/// Adds up what a machine's devices play at the same time. While none plays, nothing comes
/// out. Owned by the device lock.
package final class AudioMixer {
  package static let rate = 48000
  /// A device that neither plays nor rests is not waited for longer, in frames.
  private static let patience = AudioMixer.rate

  private let clock: any DeviceClock
  private var outputs: [any AudioOutput]
  private var voices: [Voice] = []
  /// Frames of machine time before those that wait for other voices.
  private var start = 0
  private var waiting: [SIMD2<Int32>] = []

  package init(clock: any DeviceClock, outputs: [any AudioOutput] = []) {
    self.clock = clock
    self.outputs = outputs
  }

  /// The mix goes there, too, from now on.
  package func add(_ output: any AudioOutput) { outputs.append(output) }

  package func remove(_ output: any AudioOutput) { outputs.removeAll { $0 === output } }

  /// A device's own way into the mix.
  package func makeVoice() -> any AudioSink {
    let voice = Voice(self)
    voices.append(voice)
    return voice
  }

  /// The machine's end: hands out what waits.
  package func finish() {
    for voice in voices { voice.rest() }
  }

  private var now: Int {
    let (seconds, rest) = (clock.now / 1_000_000_000, clock.now % 1_000_000_000)
    let rate = UInt64(Self.rate)
    return Int(clamping: seconds &* rate &+ rest * rate / 1_000_000_000)
  }

  /// Where sound that lasted until now began; sound that is out already cannot be changed.
  private func beginning(of count: Int) -> Int {
    let place = now - count
    if !voices.contains(where: { $0.position != nil }) { start = place }
    return max(place, start)
  }

  /// Returns where what follows belongs.
  private func add(_ frames: [AudioFrame], at position: Int) -> Int {
    let place = max(position, start)
    let missing = place - start + frames.count - waiting.count
    if missing > 0 { waiting += Array(repeating: .zero, count: missing) }
    for (index, frame) in frames.enumerated() {
      waiting[place - start + index] &+= SIMD2(Int32(frame.left), Int32(frame.right))
    }
    return place + frames.count
  }

  /// Hands out what no voice adds to any more.
  private func handOut() {
    let end = start + waiting.count
    let settled = voices.compactMap(\.position).min() ?? end
    let count = min(max(settled, end - Self.patience), end) - start
    guard count > 0 else { return }
    let frames = waiting.prefix(count).map {
      AudioFrame(left: Int16(clamping: $0.x), right: Int16(clamping: $0.y))
    }
    for output in outputs where output.isListening { output.write(frames) }
    waiting.removeFirst(count)
    start += count
  }

  private func rested() {
    handOut()
    guard !voices.contains(where: { $0.position != nil }) else { return }
    for output in outputs { output.rest() }
  }

  private final class Voice: AudioSink {
    private unowned let mixer: AudioMixer
    /// Where what it plays next belongs; `nil` while it rests.
    private(set) var position: Int?
    private var resampler = Resampler(from: AudioMixer.rate, to: AudioMixer.rate)

    init(_ mixer: AudioMixer) { self.mixer = mixer }

    func play(_ frames: [AudioFrame], rate: Int) {
      guard mixer.outputs.contains(where: { $0.isListening }) else { return rest() }
      if resampler.rate != rate { resampler = Resampler(from: rate, to: AudioMixer.rate) }
      let frames = resampler.convert(frames)
      let place = position ?? mixer.beginning(of: frames.count)
      position = mixer.add(frames, at: place)
      mixer.handOut()
    }

    func rest() {
      guard position != nil else { return }
      position = nil
      resampler = Resampler(from: resampler.rate, to: AudioMixer.rate)
      mixer.rested()
    }
  }
}
