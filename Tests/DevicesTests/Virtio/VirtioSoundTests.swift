import DeviceModel
import Devices
import Testing

@Suite struct VirtioSoundTests {
  private static let ok = 0x8000
  private static let badMessage = 0x8001
  private static let notSupported = 0x8002

  private final class Setting {
    let clock: FakeClock
    let sink = FakeSink()
    let source = CountingSource()
    let device: VirtioSound
    let bench: VirtioBench
    let queues: [DriverQueue]

    init() {
      clock = FakeClock()
      device = VirtioSound(clock: clock, sink: sink, source: source, state: nil)
      bench = VirtioBench(device)
      bench.negotiate(1 << 32)
      queues = (0..<4).map { [bench] in
        DriverQueue(bench, $0, size: 16, packed: false, base: 0x1_0000 + UInt64($0) * 0x8000)
      }
      bench.status = 0x0F
    }

    /// Sends a request of words; the answer's status and what follows it.
    func request(_ words: UInt32...) -> (status: Int, bytes: [UInt8]) {
      for (index, word) in words.enumerated() {
        queues[0].put(word, at: 0x8000 + UInt64(index) * 4)
      }
      queues[0].add([.readable(0x8000, words.count * 4), .writable(0x9000, 512)])
      queues[0].kick()
      let written = Int(queues[0].takeUsed()?.written ?? 0)
      let answer = Array(bench.memory.bytes[0x9000..<0x9000 + written])
      return (Int(LittleEndian.number(answer, at: 0, UInt32.self)), Array(answer.dropFirst(4)))
    }

    func setParameters(
      _ stream: UInt32, channels: UInt32 = 2, format: UInt32 = 5, rate: UInt32 = 7,
      buffer: UInt32 = 4096, period: UInt32 = 1024, features: UInt32 = 0
    ) -> Int {
      request(
        0x101, stream, buffer, period, features, channels | format << 8 | rate << 16
      ).status
    }

    func send(_ code: UInt32, _ stream: UInt32) -> Int { request(code, stream).status }

    func start(_ stream: UInt32) {
      _ = send(0x102, stream)
      _ = send(0x104, stream)
    }

    /// Makes samples available to be played.
    func play(_ bytes: [UInt8], at place: Int, stream: UInt32 = 0) {
      queues[2].put(stream, at: UInt64(place))
      bench.memory.bytes.replaceSubrange(place + 4..<place + 4 + bytes.count, with: bytes)
      queues[2].add([
        .readable(UInt64(place), 4), .readable(UInt64(place) + 4, bytes.count),
        .writable(UInt64(place) + 0x1000 - 8, 8),
      ])
      queues[2].kick()
    }

    func status(of place: Int) -> Int { Int(queues[2].get(UInt64(place) + 0xFF8, UInt32.self)) }
  }

  private static func samples(_ first: Int, _ count: Int) -> [UInt8] {
    (first..<first + count).flatMap { LittleEndian.bytes(Int16($0)) }
  }

  @Test("jacks, streams and channel maps are described")
  func information() {
    let setting = Setting()
    #expect(
      (0..<3).map { setting.bench.transport.read(offset: 0x2000 + $0 * 4, width: 4) } == [2, 2, 2])
    let streams = setting.request(0x100, 0, 2, 32)
    #expect(streams.status == Self.ok && streams.bytes.count == 64)
    #expect(
      LittleEndian.number(streams.bytes, at: 8, UInt64.self) == 1 << 4 | 1 << 5 | 1 << 17 | 1 << 19)
    #expect(LittleEndian.number(streams.bytes, at: 16, UInt64.self) == 0x1FFF)
    #expect(
      Array(streams.bytes[24..<27]) == [0, 1, 2] && Array(streams.bytes[56..<59]) == [1, 1, 2])
    let jacks = setting.request(1, 1, 1, 24)
    #expect(jacks.bytes.count == 24 && jacks.bytes[16] == 1)
    let maps = setting.request(0x200, 0, 2, 24)
    #expect(Array(maps.bytes[4..<8]) == [0, 2, 3, 4] && maps.bytes[28] == 1)
    #expect(setting.request(0x100, 0, 1, 40).bytes.count == 40, "a driver that knows more")
    for (first, count, size): (UInt32, UInt32, UInt32) in [
      (0, 3, 32), (2, 1, 32), (.max, 2, 32), (0, .max, 32), (0, 1, 8), (0, 1, .max),
    ] {
      #expect(setting.request(0x100, first, count, size).status == Self.badMessage)
    }
    #expect(setting.request(0x100).status == Self.badMessage)
    #expect(setting.request(2, 0).status == Self.notSupported)
  }

  @Test("parameters that cannot be are refused")
  func parameters() {
    let setting = Setting()
    #expect(setting.setParameters(0) == Self.ok)
    #expect(setting.setParameters(2) == Self.badMessage)
    #expect(setting.setParameters(0, period: 0) == Self.badMessage)
    #expect(setting.setParameters(0, period: 1000) == Self.badMessage)
    #expect(setting.setParameters(0, channels: 3) == Self.notSupported)
    #expect(setting.setParameters(0, channels: 0) == Self.notSupported)
    #expect(setting.setParameters(0, format: 0) == Self.notSupported)
    #expect(setting.setParameters(0, rate: 13) == Self.notSupported)
    #expect(setting.setParameters(0, features: 1) == Self.notSupported)
    #expect(setting.request(0x101, 0, 4).status == Self.badMessage)
  }

  @Test("a stream goes through its life in order")
  func life() {
    let setting = Setting()
    let (prepare, release, start, stop): (UInt32, UInt32, UInt32, UInt32) = (
      0x102, 0x103, 0x104, 0x105
    )
    for code in [prepare, release, start, stop] {
      #expect(setting.send(code, 0) == Self.badMessage)
    }
    #expect(setting.setParameters(0) == Self.ok)
    #expect(setting.send(start, 0) == Self.badMessage && setting.send(prepare, 0) == Self.ok)
    #expect(setting.send(stop, 0) == Self.badMessage && setting.send(start, 0) == Self.ok)
    #expect(
      setting.setParameters(0) == Self.badMessage && setting.send(release, 0) == Self.badMessage)
    #expect(setting.send(stop, 0) == Self.ok && setting.send(start, 0) == Self.ok)
    #expect(setting.send(stop, 0) == Self.ok && setting.send(release, 0) == Self.ok)
    #expect(setting.send(prepare, 0) == Self.ok && setting.send(prepare, 7) == Self.badMessage)
  }

  @Test("buffers are played at the stream's rate and given back when they were heard")
  func output() {
    let setting = Setting()
    _ = setting.setParameters(0)
    _ = setting.send(0x102, 0)
    setting.play(Self.samples(0, 480), at: 0x4_0000)
    setting.play(Self.samples(480, 480), at: 0x4_2000)
    _ = setting.send(0x104, 0)
    setting.clock.advance(4_999_999)
    #expect(setting.queues[2].takeUsed() == nil)
    setting.clock.advance(1)
    #expect(setting.queues[2].takeUsed()?.written == 8 && setting.status(of: 0x4_0000) == Self.ok)
    #expect(setting.sink.frames == countingFrames(0, 240))
    setting.clock.advance(milliseconds: 5)
    #expect(setting.queues[2].takeUsed()?.written == 8)
    #expect(setting.sink.frames == countingFrames(0, 480) && setting.sink.rates == [48000])
  }

  @Test("a stop keeps what was not played, and a release gives it back")
  func stop() {
    let setting = Setting()
    _ = setting.setParameters(0)
    setting.start(0)
    setting.play(Self.samples(0, 480), at: 0x4_0000)
    setting.play(Self.samples(480, 480), at: 0x4_2000)
    setting.clock.advance(milliseconds: 1)
    #expect(setting.send(0x105, 0) == Self.ok)
    setting.clock.advance(milliseconds: 100)
    #expect(setting.queues[2].takeUsed() == nil && setting.sink.frames.count == 48)
    #expect(setting.sink.rests == 1 && setting.clock.nextDeadline == nil)
    _ = setting.send(0x104, 0)
    setting.clock.advance(milliseconds: 4)
    #expect(setting.queues[2].takeUsed() != nil && setting.sink.frames == countingFrames(0, 240))
    _ = setting.send(0x105, 0)
    #expect(setting.send(0x103, 0) == Self.ok)
    #expect(setting.queues[2].takeUsed()?.written == 8 && setting.status(of: 0x4_2000) == Self.ok)
  }

  @Test("a stream that ran dry tells so once, and begins anew with the next buffer")
  func xrun() {
    let setting = Setting()
    _ = setting.setParameters(0, features: 1 << 4)
    setting.queues[1].add([.writable(0xA000, 8)])
    setting.queues[1].kick()
    setting.start(0)
    setting.play(Self.samples(0, 96), at: 0x4_0000)
    setting.clock.advance(milliseconds: 1)
    #expect(setting.queues[1].takeUsed() == nil)
    setting.clock.advance(milliseconds: 200)
    #expect(setting.queues[1].takeUsed()?.written == 8)
    #expect(setting.queues[1].get(0xA000, UInt64.self) == 0x1101)
    #expect(setting.sink.rests == 1 && setting.clock.nextDeadline == nil)
    setting.play(Self.samples(96, 96), at: 0x4_2000)
    #expect(setting.sink.frames.count == 48)
    setting.clock.advance(milliseconds: 1)
    #expect(setting.sink.frames == countingFrames(0, 96))
  }

  @Test("every format and number of channels becomes the same sound")
  func formats() {
    let wanted: [Int16] = [0, 256, -256, 0x4000, -0x4000, -0x8000]
    for (format, bytes): (UInt32, (Int16) -> [UInt8]) in [
      (4, { [UInt8(truncatingIfNeeded: ($0 >> 8) + 128)] }), (5, { LittleEndian.bytes($0) }),
      (17, { LittleEndian.bytes(Int32($0) << 16) }),
      (19, { LittleEndian.bytes((Float($0) / 32768).bitPattern) }),
    ] {
      for channels: UInt32 in 1...2 {
        let setting = Setting()
        #expect(setting.setParameters(0, channels: channels, format: format) == Self.ok)
        setting.start(0)
        setting.play(wanted.flatMap(bytes), at: 0x4_0000)
        setting.clock.advance(milliseconds: 1)
        let heard = setting.sink.frames.flatMap { channels == 2 ? [$0.left, $0.right] : [$0.left] }
        #expect(heard == wanted, "format \(format), \(channels) channels")
      }
    }
    let setting = Setting()
    _ = setting.setParameters(0, channels: 1, format: 19, rate: 12)
    setting.start(0)
    let values: [Float] = [.nan, .infinity, 7, -7]
    setting.play(values.flatMap { LittleEndian.bytes($0.bitPattern) }, at: 0x4_0000)
    setting.clock.advance(milliseconds: 1)
    #expect(setting.sink.frames.map(\.left) == [0, 0, 32767, -32768])
    #expect(setting.sink.rates == [192_000])
  }

  @Test("buffers to record into are filled at the stream's rate, in its format")
  func input() {
    let setting = Setting()
    #expect(setting.setParameters(1, channels: 1, format: 5, rate: 1) == Self.ok)
    setting.start(1)
    setting.queues[3].put(UInt32(1), at: 0x4_0000)
    setting.queues[3].add([
      .readable(0x4_0000, 4), .writable(0x4_1000, 32), .writable(0x4_2000, 8),
    ])
    setting.queues[3].kick()
    setting.clock.advance(1_999_999)
    #expect(setting.queues[3].takeUsed() == nil)
    setting.clock.advance(1)
    #expect(setting.queues[3].takeUsed()?.written == 40)
    let recorded = (0..<16).map { setting.queues[3].get(0x4_1000 + $0 * 2, Int16.self) }
    #expect(recorded == (0..<16).map { Int16($0) })
    #expect(setting.queues[3].get(0x4_2000, UInt64.self) == 0x8000)
    #expect(setting.source.rests == 0)
    #expect(setting.send(0x105, 1) == Self.ok)
    #expect(setting.source.rests == 1)
  }

  @Test("buffers for a stream that is not there, or not prepared, come back at once")
  func misdirected() {
    let setting = Setting()
    setting.play([1, 2, 3, 4], at: 0x4_0000)
    #expect(setting.queues[2].takeUsed() != nil && setting.status(of: 0x4_0000) == Self.badMessage)
    for stream: UInt32 in [1, 2, .max] {
      _ = setting.setParameters(1)
      _ = setting.send(0x102, 1)
      setting.play([1, 2, 3, 4], at: 0x4_0000, stream: stream)
      #expect(setting.queues[2].takeUsed() != nil)
    }
    #expect(!setting.bench.needsReset)
    setting.queues[2].add([.readable(0x4_0000, 4), .writable(0x4_1000, 4)])
    setting.queues[2].kick()
    #expect(setting.bench.needsReset)
  }

  @Test("buffers without samples, and parts of frames, hold nothing up")
  func odd() {
    let setting = Setting()
    _ = setting.setParameters(0)
    setting.start(0)
    setting.play([], at: 0x4_0000)
    setting.play([1, 0, 2, 0, 9, 9, 9], at: 0x4_2000)
    setting.play([3, 0, 4, 0], at: 0x4_4000)
    setting.clock.advance(milliseconds: 2)
    #expect((0..<3).allSatisfy { _ in setting.queues[2].takeUsed() != nil })
    #expect(setting.sink.frames.map(\.left) == [1, 3])
  }

  @Test("a restored stream goes on in the middle of a buffer")
  func restored() {
    let setting = Setting()
    _ = setting.setParameters(0)
    setting.start(0)
    setting.play(Self.samples(0, 960), at: 0x4_0000)
    setting.clock.advance(4_321_000)
    let clock = FakeClock(now: setting.clock.now)
    let device = VirtioSound(
      clock: clock, sink: setting.sink, source: setting.source,
      state: setting.device.saveState())
    let bench = VirtioBench(
      device, memory: setting.bench.memory, state: setting.bench.transport.saveState())
    bench.transport.resume()
    clock.advance(milliseconds: 6)
    #expect(setting.sink.frames == countingFrames(0, 480))
    #expect(setting.queues[2].takeUsed()?.written == 8)
  }
}
