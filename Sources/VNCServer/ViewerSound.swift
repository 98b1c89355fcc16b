import DeviceModel
import Display

/// Sound as a viewer may ask for it (rfbproto, QEMU Audio Client Message).
package struct AudioFormat: Hashable, Sendable {
  /// How a sample is sent, least significant byte first as QEMU and gtk-vnc have it.
  package enum Sample: UInt8, CaseIterable, Sendable {
    case unsigned8
    case signed8
    case unsigned16
    case signed16
    case unsigned32
    case signed32

    var size: Int { 1 << Int(rawValue / 2) }
    var isSigned: Bool { rawValue & 1 != 0 }
  }

  package static let rates = DisplayLinkMessage.soundRates

  package var sample: Sample
  /// One or two.
  package var channels: Int
  package var rate: Int

  package init(_ sample: Sample, channels: Int, rate: Int) {
    (self.sample, self.channels, self.rate) = (sample, channels, rate)
  }

  /// What a viewer gets that asks for nothing else, as from QEMU.
  package static let usual = AudioFormat(.signed16, channels: 2, rate: 44100)

  package func bytes(_ frames: [AudioFrame]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(frames.count * channels * sample.size)
    for frame in frames {
      guard channels == 1 else {
        append(frame.left, to: &bytes)
        append(frame.right, to: &bytes)
        continue
      }
      append(Int16((Int(frame.left) + Int(frame.right)) >> 1), to: &bytes)
    }
    return bytes
  }

  private func append(_ value: Int16, to bytes: inout [UInt8]) {
    // Wider samples have it in their upper half, narrower ones its upper half.
    let bits = UInt32(UInt16(bitPattern: value)) << 16 ^ (sample.isSigned ? 0 : 0x8000_0000)
    for byte in (4 - sample.size)..<4 {
      bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(byte * 8)))
    }
  }
}

/// What a viewer says about sound.
package enum AudioRequest: Hashable, Sendable {
  case enable
  case disable
  case format(AudioFormat)
}

/// A desktop's sound for one viewer, by QEMU's extension of RFB.
///
/// Pure: the VMM's news and the viewer's wishes in, messages out. What the viewer's path
/// does not take waits here for a quarter of a second; then the oldest is left out.
package struct ViewerSound {
  private enum Operation: UInt16 {
    case end
    case begin
    case data
  }

  private static let maximumWaiting = 12000
  /// In one message, so that pixels get their turn.
  private static let framesPerMessage = 960

  /// Whether the viewer wants sound.
  package private(set) var isEnabled = false
  private var format = AudioFormat.usual
  private var queue = SoundQueue(limit: maximumWaiting)
  /// Frames a second of what the VMM sends.
  private var rate = AudioFormat.usual.rate
  private var resampler = Resampler(
    from: AudioFormat.usual.rate, to: AudioFormat.usual.rate)

  package init() {}

  /// Whether `next` has something to say.
  package var hasPending: Bool { !queue.isEmpty }

  package mutating func take(_ request: AudioRequest) {
    switch request {
    case .enable: isEnabled = true
    case .disable:
      isEnabled = false
      queue.clear()
    case .format(let format):
      guard format != self.format else { return }
      self.format = format
      queue.restart()
      resampler = Resampler(from: rate, to: format.rate)
    }
  }

  package mutating func take(_ event: DisplayLinkMessage.SoundEvent) {
    switch event {
    case .begin(let rate):
      self.rate = rate
      resampler = Resampler(from: rate, to: format.rate)
    case .frames(let frames, _): if isEnabled { queue.append(frames, rate: rate) }
    case .end: queue.end()
    }
  }

  /// The next message for the viewer; `nil` when there is nothing to say.
  package mutating func next() -> [UInt8]? {
    while let item = queue.next(atMost: Self.framesPerMessage) {
      queue.take(item)
      switch item {
      case .begin: return Self.message(.begin)
      case .end: return Self.message(.end)
      case .frames(let frames, _):
        let data = format.bytes(resampler.convert(Array(frames)))
        guard !data.isEmpty else { continue }
        let size = UInt32(clamping: data.count)
        return Self.message(.data)
          + (0..<4).map { UInt8(truncatingIfNeeded: size >> (24 - $0 * 8)) } + data
      }
    }
    return nil
  }

  private static func message(_ operation: Operation) -> [UInt8] {
    [
      RFBNumbers.ServerMessage.qemu, RFBNumbers.QEMUMessage.audio, 0,
      UInt8(operation.rawValue),
    ]
  }
}
