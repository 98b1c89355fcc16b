import DeviceModel

/// How a stream has its samples in memory, by VIRTIO's numbers (section 5.14.6.6.2).
enum SampleFormat: UInt8, CaseIterable, Codable, Sendable {
  case unsigned8 = 4
  case signed16 = 5
  case signed32 = 17
  case float = 19

  var byteCount: Int {
    switch self {
    case .unsigned8: 1
    case .signed16: 2
    case .signed32, .float: 4
    }
  }

  func sample(_ bytes: [UInt8], at offset: Int) -> Int16 {
    switch self {
    case .unsigned8: return (Int16(bytes[offset]) - 128) << 8
    case .signed16: return LittleEndian.number(bytes, at: offset, Int16.self)
    case .signed32:
      // Its upper half, as nothing is left of the lower one.
      return LittleEndian.number(bytes, at: offset + 2, Int16.self)
    case .float:
      let value = Float(bitPattern: LittleEndian.number(bytes, at: offset, UInt32.self))
      guard value.isFinite else { return 0 }
      return Int16((min(max(value, -1), 1) * 32768).rounded().clamped)
    }
  }

  func bytes(_ sample: Int16) -> [UInt8] {
    switch self {
    case .unsigned8: [UInt8(truncatingIfNeeded: (sample >> 8) + 128)]
    case .signed16: LittleEndian.bytes(sample)
    case .signed32: [0, 0] + LittleEndian.bytes(sample)
    case .float: LittleEndian.bytes((Float(sample) / 32768).bitPattern)
    }
  }
}

extension Float {
  /// Within what 16 bits hold.
  fileprivate var clamped: Float { Swift.min(Swift.max(self, -32768), 32767) }
}

/// One PCM stream of a sound device: what was agreed upon, and the driver's buffers.
struct VirtioSoundStream: Codable, Sendable {
  enum Phase: String, Codable, Sendable {
    case idle, configured, prepared, running, stopped
  }

  /// VIRTIO_SND_PCM_F_EVT_XRUNS.
  static let features: UInt32 = 1 << 4
  /// By VIRTIO's numbers of rates, from 0 on.
  static let rates = [
    5512, 8000, 11025, 16000, 22050, 32000, 44100, 48000, 64000, 88200, 96000, 176_400, 192_000,
  ]

  var phase = Phase.idle
  var format = SampleFormat.signed16
  var channels = 2
  var rate = 48000
  var tellsOfXruns = false
  /// The driver's buffers, first to last, and how many bytes of the first are done.
  var pending: [VirtqueueChain] = []
  var done = 0
  /// Runs while frames do; `nil` while there is nothing to move.
  var clock: SampleClock?

  var frameSize: Int { format.byteCount * channels }
  var takesBuffers: Bool { phase == .prepared || phase == .running || phase == .stopped }
  var maySetParameters: Bool { phase == .idle || phase == .configured || phase == .prepared }

  /// struct virtio_snd_pcm_set_params.
  mutating func setParameters(_ request: [UInt8]) -> VirtioSound.Status {
    func word(_ index: Int) -> UInt32 { LittleEndian.number(request, at: index * 4, UInt32.self) }
    let (buffer, period, features) = (word(2), word(3), word(4))
    let rate = Int(request[22])
    guard period > 0, buffer >= period, buffer % period == 0 else { return .badMessage }
    guard features & ~Self.features == 0, (1...2).contains(request[20]),
      let format = SampleFormat(rawValue: request[21]), Self.rates.indices.contains(rate)
    else { return .notSupported }
    // Buffers that were sent for other samples stay until they are released.
    guard pending.isEmpty else { return .badMessage }
    self = VirtioSoundStream(
      phase: .configured, format: format, channels: Int(request[20]), rate: Self.rates[rate],
      tellsOfXruns: features & Self.features != 0)
    return .ok
  }

  /// Sound from the driver's bytes.
  func frames(_ bytes: [UInt8]) -> [AudioFrame] {
    stride(from: 0, to: bytes.count, by: frameSize).map { at in
      let left = format.sample(bytes, at: at)
      guard channels == 2 else { return AudioFrame(left: left, right: left) }
      return AudioFrame(left: left, right: format.sample(bytes, at: at + format.byteCount))
    }
  }

  /// Bytes for the driver.
  func bytes(_ frames: [AudioFrame]) -> [UInt8] {
    frames.flatMap {
      channels == 2 ? format.bytes($0.left) + format.bytes($0.right) : format.bytes($0.left)
    }
  }
}
