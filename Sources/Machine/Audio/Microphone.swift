import DeviceModel
import Display

/// What a machine's devices record: what some microphone hears, and silence where none
/// does. Owned by the device lock.
package final class Microphone {
  /// Frames a second of what is heard.
  package static let rate = DisplayLinkMessage.microphoneRate
  /// What comes without pause comes in parts, and not quite in time: an eighth of a second
  /// of it is waited for before any is recorded, so that it stays without pause.
  private static let reserve = rate / 8

  /// Told whether any device records; device lock held.
  package var onRecording: (Bool) -> Void = { _ in }
  package private(set) var isRecording = false
  private var ears: [Ear] = []

  package init() {}

  /// A device's own way to hear.
  package func makeEar() -> any AudioSource {
    let ear = Ear(self)
    ears.append(ear)
    return ear
  }

  /// The microphone heard this.
  package func hear(_ frames: [AudioFrame]) {
    for ear in ears { ear.hear(frames) }
  }

  private func settle() {
    let isRecording = ears.contains { $0.isRecording }
    guard isRecording != self.isRecording else { return }
    self.isRecording = isRecording
    onRecording(isRecording)
  }

  private final class Ear: AudioSource {
    private unowned let microphone: Microphone
    private(set) var isRecording = false
    private var heard: [AudioFrame] = []
    private var resampler = Resampler(from: Microphone.rate, to: Microphone.rate)
    /// Silence is recorded until the reserve is there.
    private var isWaiting = true

    init(_ microphone: Microphone) { self.microphone = microphone }

    func hear(_ frames: [AudioFrame]) {
      guard isRecording else { return }
      heard += resampler.convert(frames)
      let excess = heard.count - scaled(DisplayLinkMessage.maximumWaitingFrames)
      if excess > 0 { heard.removeFirst(excess) }
      if heard.count >= scaled(Microphone.reserve) { isWaiting = false }
    }

    func record(_ count: Int, rate: Int) -> [AudioFrame] {
      if !isRecording || resampler.output != rate { begin(rate) }
      guard !isWaiting else { return Array(repeating: .silence, count: count) }
      let frames = Array(heard.prefix(count))
      heard.removeFirst(frames.count)
      guard frames.count < count else { return frames }
      isWaiting = true
      return frames + Array(repeating: .silence, count: count - frames.count)
    }

    func rest() {
      guard isRecording else { return }
      isRecording = false
      heard = []
      microphone.settle()
    }

    private func begin(_ rate: Int) {
      heard = []
      resampler = Resampler(from: Microphone.rate, to: rate)
      isWaiting = true
      isRecording = true
      microphone.settle()
    }

    /// As many frames as that are at the rate of what is recorded.
    private func scaled(_ count: Int) -> Int { count * resampler.output / Microphone.rate }
  }
}
