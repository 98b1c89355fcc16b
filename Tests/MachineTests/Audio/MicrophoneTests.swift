import DeviceModel
import LinuxSystem
import Machine
import Testing

@Suite("Microphone")
struct MicrophoneTests {
  private static func frames(_ first: Int, _ count: Int) -> [AudioFrame] {
    (first..<first + count).map { AudioFrame(left: Int16($0), right: Int16(-$0)) }
  }

  private static func silence(_ count: Int) -> [AudioFrame] {
    Array(repeating: .silence, count: count)
  }

  @Test("a device records silence, then what is heard without a gap, then silence")
  func heard() {
    let microphone = Microphone()
    let ear = microphone.makeEar()
    microphone.hear(Self.frames(1, 480))
    #expect(ear.record(960, rate: 48000) == Self.silence(960), "nothing from before")
    microphone.hear(Self.frames(1, 5000))
    #expect(ear.record(960, rate: 48000) == Self.silence(960), "a reserve is waited for")
    microphone.hear(Self.frames(5001, 2000))
    #expect(ear.record(3000, rate: 48000) == Self.frames(1, 3000))
    #expect(ear.record(5000, rate: 48000) == Self.frames(3001, 4000) + Self.silence(1000))
    microphone.hear(Self.frames(1, 5000))
    #expect(ear.record(960, rate: 48000) == Self.silence(960), "and waited for again")
  }

  @Test("of what no device takes the oldest is left out")
  func slow() {
    let microphone = Microphone()
    let ear = microphone.makeEar()
    _ = ear.record(1, rate: 48000)
    for start in stride(from: 0, to: 30_000, by: 3000) { microphone.hear(Self.frames(start, 3000)) }
    #expect(ear.record(24_001, rate: 48000) == Self.frames(6000, 24_000) + Self.silence(1))
  }

  @Test("each device hears all of it, at its own rate")
  func ears() {
    let microphone = Microphone()
    let (first, second) = (microphone.makeEar(), microphone.makeEar())
    _ = (first.record(1, rate: 48000), second.record(1, rate: 8000))
    microphone.hear(Array(repeating: AudioFrame(left: 600, right: -600), count: 12_000))
    #expect(first.record(12_000, rate: 48000).allSatisfy { $0.left == 600 })
    let slower = second.record(2001, rate: 8000)
    // Its beginning is a cubic's.
    #expect(
      slower.dropFirst(4).prefix(1990).allSatisfy { $0 == AudioFrame(left: 600, right: -600) })
    #expect(slower.last == .silence)
  }

  @Test("it tells when somebody records, and when nobody does any more")
  func told() {
    let microphone = Microphone()
    let told = Guarded<[Bool]>([])
    microphone.onRecording = { isRecording in told.change { $0.append(isRecording) } }
    let (first, second) = (microphone.makeEar(), microphone.makeEar())
    first.rest()
    _ = (first.record(1, rate: 48000), second.record(1, rate: 48000), first.record(1, rate: 8000))
    first.rest()
    #expect(told.withLock { $0 } == [true] && microphone.isRecording)
    second.rest()
    second.rest()
    #expect(told.withLock { $0 } == [true, false])
    microphone.hear(Self.frames(1, 9000))
    _ = first.record(1, rate: 48000)
    #expect(first.record(10, rate: 48000) == Self.silence(10), "what was heard before is over")
    #expect(told.withLock { $0 } == [true, false, true])
  }
}
