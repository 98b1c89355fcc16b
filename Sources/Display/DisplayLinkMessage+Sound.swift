import DeviceModel

/// Sound's part of the codec.
extension DisplayLinkMessage {
  private enum SoundCode: UInt8 {
    case end
    case begin
    case frames
  }

  func encodeSound(to writer: inout LinkWriter) {
    switch self {
    case .audio(let event):
      writer.write(Code.audio.rawValue)
      Self.write(event, to: &writer)
    case .recording(let isRecording):
      writer.write(Code.recording.rawValue)
      writer.write(UInt8(isRecording ? 1 : 0))
    case .listen(let sound, let microphone):
      writer.write(Code.listen.rawValue)
      writer.write(UInt8(sound ? 1 : 0) | UInt8(microphone ? 2 : 0))
    case .microphone(let frames):
      writer.write(Code.microphone.rawValue)
      Self.write(frames, to: &writer)
    default: break
    }
  }

  private static func write(_ event: SoundEvent, to writer: inout LinkWriter) {
    switch event {
    case .end: writer.write(SoundCode.end.rawValue)
    case .begin(let rate):
      writer.write(SoundCode.begin.rawValue)
      writer.write(UInt32(min(max(rate, soundRates.lowerBound), soundRates.upperBound)))
    case .frames(let frames, let lost):
      writer.write(SoundCode.frames.rawValue)
      writer.write(lost)
      write(frames, to: &writer)
    }
  }

  private static func write(_ frames: [AudioFrame], to writer: inout LinkWriter) {
    for frame in frames.prefix(maximumFrames) {
      writer.write(frame.left)
      writer.write(frame.right)
    }
  }

  static func readSound(_ reader: inout LinkReader) throws(DisplayLinkError) -> SoundEvent {
    switch SoundCode(rawValue: try reader.read()) {
    case .end: return .end
    case .begin:
      let rate = Int(try reader.read(UInt32.self))
      guard soundRates.contains(rate) else {
        throw DisplayLinkError(.malformed, "display link: sound of \(rate) frames a second")
      }
      return .begin(rate: rate)
    case .frames:
      let lost: UInt32 = try reader.read()
      return .frames(try readFrames(&reader), lost: lost)
    case nil: throw DisplayLinkError(.malformed, "display link: unknown news of sound")
    }
  }

  /// The rest of the packet as frames, one at least.
  static func readFrames(_ reader: inout LinkReader) throws(DisplayLinkError) -> [AudioFrame] {
    let count = reader.remaining / 4
    guard count > 0 && count <= maximumFrames else {
      throw DisplayLinkError(.malformed, "display link: a packet of \(count) frames of sound")
    }
    var frames: [AudioFrame] = []
    frames.reserveCapacity(count)
    for _ in 0..<count {
      frames.append(AudioFrame(left: try reader.read(), right: try reader.read()))
    }
    return frames
  }
}
