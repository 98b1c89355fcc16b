import DeviceModel
import Display
import LinuxSystem
import TestSupport
import Testing
import VNCServer

@Suite("Sound to viewers", .timeLimit(.minutes(4)))
struct SoundTests {
  private static let signed16: UInt8 = 3

  /// A viewer that was offered sound, and the machine whose sound it is.
  private struct Setting {
    let connection: Connection
    let viewer: SoundViewer

    init() throws {
      connection = try Connection(scanout(320, 200))
      viewer = SoundViewer(connection.viewer.descriptor)
      try viewer.connect()
    }

    func enable(_ format: UInt8 = SoundTests.signed16, channels: UInt8 = 2, rate: UInt32 = 48000)
      throws
    {
      try viewer.setFormat(format, channels: channels, rate: rate)
      try viewer.enable()
      #expect(waits(until: true))
    }

    /// Whether the machine learns that somebody listens, or nobody.
    func waits(until wanted: Bool) -> Bool {
      connection.machine.wait { _ in connection.machine.server.wantsSound == wanted }
    }

    func play(_ frames: [AudioFrame]) {
      for start in stride(from: 0, to: frames.count, by: 960) {
        connection.machine.server.publish(
          sound: Array(frames[start..<min(start + 960, frames.count)]), rate: 48000)
      }
    }

    func fallSilent() { connection.machine.server.publish(sound: [], rate: 48000) }
  }

  private static func ramp(_ count: Int) -> [AudioFrame] {
    (0..<count).map {
      AudioFrame(left: Int16(truncatingIfNeeded: $0 &* 7), right: Int16(truncatingIfNeeded: -$0))
    }
  }

  private static func little(_ samples: [Int16]) -> [UInt8] {
    samples.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
  }

  @Test("16 bits, stereo, at 48 kHz are what was played, sample for sample")
  func exact() throws {
    let setting = try Setting()
    try setting.enable()
    let frames = Self.ramp(9600)
    setting.play(frames)
    setting.fallSilent()
    #expect(try setting.viewer.stream() == Self.little(frames.flatMap { [$0.left, $0.right] }))
  }

  @Test(
    "every format has the same sound", arguments: 0..<6 as Range<UInt8>, 1...2 as ClosedRange<UInt8>
  )
  func formats(format: UInt8, channels: UInt8) throws {
    let setting = try Setting()
    try setting.enable(format, channels: channels)
    let frames = [
      AudioFrame(left: .max, right: .min), AudioFrame(left: 0, right: 0),
      AudioFrame(left: -1, right: 1), AudioFrame(left: 0x1234, right: 0x5678),
      AudioFrame(left: .min, right: .min), AudioFrame(left: .max, right: .max),
    ]
    setting.play(frames)
    setting.fallSilent()
    let samples = frames.flatMap { frame in
      channels == 2
        ? [Int(frame.left), Int(frame.right)]
        : [Int((Double(Int(frame.left) + Int(frame.right)) / 2).rounded(.down))]
    }
    let size = 1 << Int(format / 2)
    let expected = samples.flatMap { sample -> [UInt8] in
      let wide = (sample + (format % 2 == 0 ? 32768 : 0)) << 16
      return (0..<size).map { UInt8(truncatingIfNeeded: wide >> ((4 - size + $0) * 8)) }
    }
    #expect(try setting.viewer.stream() == expected)
  }

  @Test(
    "another rate has the sound in as many frames as that makes of it",
    arguments: [8000, 11_025, 22_050, 44_100, 96_000] as [UInt32])
  func rates(rate: UInt32) throws {
    let setting = try Setting()
    try setting.enable(0, channels: 1, rate: rate)
    let frames = (0..<9600).map { index in
      let value: Int16 = index / 120 % 2 == 0 ? 8192 : -8192
      return AudioFrame(left: value, right: value)
    }
    setting.play(frames)
    setting.fallSilent()
    let heard = try setting.viewer.stream()
    #expect(abs(heard.count - 9600 * Int(rate) / 48000) <= 1)
    var resampler = Resampler(from: 48000, to: Int(rate))
    let converted = resampler.convert(frames).map { UInt8(($0.left >> 8) + 128) }
    #expect(heard == converted)
    #expect(heard.contains(160) && heard.contains(96))
  }

  @Test("what a viewer gets that asked for no format is QEMU's")
  func usual() throws {
    let setting = try Setting()
    try setting.viewer.enable()
    #expect(setting.waits(until: true))
    setting.play(Self.ramp(4800))
    setting.fallSilent()
    #expect(abs(try setting.viewer.stream().count / 4 - 4410) <= 1)
  }

  @Test("who wants none gets none, and who does not any more gets an end")
  func disabled() throws {
    let setting = try Setting()
    #expect(!setting.connection.machine.server.wantsSound)
    try setting.enable()
    setting.play(Self.ramp(960))
    #expect(try setting.viewer.next() == .begin)
    #expect(
      try setting.viewer.next()
        == .data(Self.little(Self.ramp(960).flatMap { [$0.left, $0.right] })))
    try setting.viewer.disable()
    #expect(try setting.viewer.next() == .end)
    #expect(setting.waits(until: false))
    setting.play(Self.ramp(960))
    #expect(!setting.viewer.hasMore(within: 200))
    try setting.enable()
    setting.play(Self.ramp(96))
    #expect(try setting.viewer.next() == .begin)
  }

  @Test("a format for what plays already begins another stream")
  func changed() throws {
    let setting = try Setting()
    try setting.enable()
    setting.play(Self.ramp(960))
    #expect(try setting.viewer.next() == .begin)
    _ = try setting.viewer.next()
    try setting.viewer.setFormat(0, channels: 1, rate: 48000)
    // Messages are taken in order: the picture comes after the format was taken.
    try setting.viewer.request()
    guard case .update = try setting.viewer.next() else {
      Issue.record("no picture")
      return
    }
    setting.play(Self.ramp(960))
    #expect(try setting.viewer.next() == .end)
    #expect(try setting.viewer.next() == .begin)
    guard case .data(let bytes) = try setting.viewer.next() else {
      Issue.record("no sound")
      return
    }
    #expect(bytes.count == 960)
  }

  @Test("a desktop that goes away ends its sound, and the next one is listened to")
  func replaced() throws {
    let setting = try Setting()
    try setting.enable()
    setting.play(Self.ramp(96))
    #expect(try setting.viewer.next() == .begin)
    _ = try setting.viewer.next()
    let directory = try TemporaryDirectory()
    let path = directory.path("desk.display")
    let next = try FakeMachine(path: path)
    next.server.publish(scanout(320, 200))
    setting.connection.session.attach(path: path)
    #expect(try setting.viewer.next() == .end)
    #expect(next.wait { _ in next.server.wantsSound })
    next.server.publish(sound: Self.ramp(96), rate: 48000)
    #expect(try setting.viewer.next() == .begin)
    withExtendedLifetime(directory) {}
  }

  @Test("sound does not delay the picture of a viewer that is behind, nor pile up")
  func behind() throws {
    let setting = try Setting()
    try setting.enable()
    // Twenty seconds, of which the viewer reads nothing. Its session goes on taking it.
    let frames = Self.ramp(9600)
    for _ in 0..<100 { setting.play(frames) }
    try setting.viewer.request()
    var (sound, pixels) = (0, 0)
    while pixels == 0 {
      switch try setting.viewer.next() {
      case .data(let bytes): sound += bytes.count
      case .update(let count, _): pixels += count
      default: break
      }
    }
    #expect(pixels == 320 * 200 * 4)
    // Less than a second of sound came before it.
    #expect(sound > 0 && sound < 48000 * 4)
    setting.fallSilent()
    while try setting.viewer.next() != .end {}
    setting.play(Self.ramp(960))
    #expect(try setting.viewer.next() == .begin)
  }

  @Test(
    "a format that is none ends the connection",
    arguments: [
      [6, 2, 0, 0, 0xBB, 0x80], [3, 0, 0, 0, 0xBB, 0x80], [3, 3, 0, 0, 0xBB, 0x80],
      [3, 2, 0, 0, 0, 0], [3, 2, 0, 0, 0, 1], [3, 2, 0xFF, 0xFF, 0xFF, 0xFF],
    ] as [[UInt8]])
  func refused(format: [UInt8]) throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.send([255, 1, 0, 2] + format)
    #expect(connection.viewer.isClosed(within: 20_000))
  }

  @Test("an operation that is none ends the connection")
  func unknownOperation() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.send([255, 1, 0, 3])
    #expect(connection.viewer.isClosed(within: 20_000))
  }
}
