import DeviceModel
import Display
import DisplayLink
import LinuxSystem
import Machine
import TestSupport
import Testing
import VNCServer

@Suite("Sound of a guest for its displays", .needsKVM, .timeLimit(.minutes(2)))
struct DisplaySoundTests {
  private static let buffers = 4

  private static let frames = (0..<buffers * AC97Program.framesPerBuffer).map {
    AudioFrame(
      left: Int16(truncatingIfNeeded: $0 &* 7), right: Int16(truncatingIfNeeded: $0 &* -11))
  }

  /// Plays them, with these registers of the codec, and switches itself off.
  private static func player(_ registers: [(UInt32, UInt32)] = []) -> GuestProgram {
    var program = AC97Program()
    for (register, value) in registers { program.set(register, value) }
    program.run(.output, buffers: buffers)
    return program.finished(frames, buffers: buffers)
  }

  private static func machine(
    _ program: GuestProgram, _ card: MachineConfiguration.Audio.Card = .ac97
  ) throws -> (guest: TestGuest, output: DisplayOutput) {
    let guest = try TestGuest(program) { configuration, _ in
      configuration.display = .standard
      configuration.audio = .init(card)
    }
    return (guest, try DisplayOutput(of: guest.machine, path: nil))
  }

  /// What a viewer hears of the guest, as bytes of the format it asks for.
  private func heard(
    _ program: GuestProgram, format: UInt8 = 3, channels: UInt8 = 2, rate: UInt32 = 48000
  ) throws -> [UInt8] {
    let (guest, output) = try Self.machine(program)
    let (mine, theirs) = try UnixSocket.pair(kind: .stream)
    let session = try ViewerSession(
      client: theirs.descriptor, configuration: ViewerConfiguration(), link: try output.connect()
    ) { _ in }
    let viewer = SoundViewer(mine.descriptor)
    try viewer.connect()
    try viewer.setFormat(format, channels: channels, rate: rate)
    try viewer.enable()
    try eventually("the machine to be listened to") { output.isHeard }
    try guest.machine.resume()
    let bytes = try viewer.stream()
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    mine.shutDown()
    session.join()
    guest.machine.tearDown()
    return bytes
  }

  private func samples(_ bytes: [UInt8]) -> [AudioFrame] {
    func sample(_ place: Int) -> Int16 {
      Int16(bitPattern: UInt16(bytes[place]) | UInt16(bytes[place + 1]) << 8)
    }
    return stride(from: 0, to: bytes.count, by: 4).map {
      AudioFrame(left: sample($0), right: sample($0 + 2))
    }
  }

  @Test("a viewer hears what the guest plays on AC'97, sample for sample and without a gap")
  func exact() throws {
    #expect(try samples(heard(Self.player())) == Self.frames)
  }

  @Test("a viewer that asks for 8 bits, mono, at half the rate hears that")
  func converted() throws {
    var resampler = Resampler(from: 48000, to: 24000)
    let expected = resampler.convert(Self.frames).map { frame in
      UInt8(((Int(frame.left) + Int(frame.right)) >> 9) + 128)
    }
    #expect(expected.count == Self.frames.count / 2)
    #expect(try heard(Self.player(), format: 0, channels: 1, rate: 24000) == expected)
  }

  @Test("the guest's volume is heard, left and right")
  func volume() throws {
    // 2 and 8 steps of 1.5 dB.
    let heard = try samples(heard(Self.player([(0x02, 0x0208)])))
    try #require(heard.count == Self.frames.count)
    func isNear(_ value: Int16, _ wanted: Double) -> Bool { abs(Double(value) - wanted) <= 1 }
    for (frame, original) in zip(heard, Self.frames) {
      try #require(
        isNear(frame.left, Double(original.left) * 0.707_946)
          && isNear(frame.right, Double(original.right) * 0.251_189))
    }
  }

  @Test("of a muted guest silence is heard, for as long as it plays")
  func mute() throws {
    let heard = try samples(heard(Self.player([(0x02, 0x8000)])))
    #expect(heard == Array(repeating: .silence, count: Self.frames.count))
  }

  @Test("a guest that records hears the microphone of a display")
  func microphone() throws {
    let buffers = 16
    var program = AC97Program()
    program.run(.input, buffers: buffers)
    program.run(.output, buffers: buffers)
    // Played back, what was recorded is heard.
    let (guest, output) = try Self.machine(program.finished(buffers: buffers, at: 0x40_0000))
    let display = DisplayEar(
      try DisplayLinkClient(connected: try output.connect()))
    display.link.listen(sound: true, microphone: true)
    try display.process { display.recordings == [false] && output.isHeard }
    try guest.machine.resume()
    try display.process { display.recordings.last == true }
    let spoken = (1...12_000).map {
      AudioFrame(left: Int16($0), right: Int16(truncatingIfNeeded: $0 &* -3))
    }
    for start in stride(from: 0, to: spoken.count, by: 960) {
      display.link.send(.microphone(Array(spoken[start..<min(start + 960, spoken.count)])))
    }
    try display.process { display.isOver }
    #expect(display.recordings == [false, true, false])
    #expect(display.frames.count == buffers * AC97Program.framesPerBuffer)
    let heard = display.frames.drop { $0 == .silence }.prefix(spoken.count)
    #expect(heard.count > 1000 && Array(heard) == Array(spoken.prefix(heard.count)))
    #expect(display.frames.dropFirst(heard.endIndex).allSatisfy { $0 == .silence })
    guest.machine.tearDown()
  }

  @Test("a guest that records with virtio-snd hears it, too")
  func virtioMicrophone() throws {
    let (guest, output) = try Self.machine(SoundDriver.recorder, .virtio)
    let display = DisplayEar(try DisplayLinkClient(connected: try output.connect()))
    display.link.listen(sound: false, microphone: true)
    try display.process { display.recordings == [false] }
    try guest.machine.resume()
    try display.process { display.recordings.last == true }
    let spoken = (1...12_000).map { AudioFrame(left: Int16($0), right: 0) }
    for start in stride(from: 0, to: spoken.count, by: 960) {
      display.link.send(.microphone(Array(spoken[start..<min(start + 960, spoken.count)])))
    }
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    guest.machine.tearDown()
    let bytes = try guest.directory.read("serial")
    #expect(bytes.count == SoundDriver.frames * 2)
    let samples = stride(from: 0, to: bytes.count, by: 2).map {
      Int16(bitPattern: UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8)
    }
    let heard = samples.drop { $0 == 0 }.prefix(spoken.count)
    #expect(heard.count > 1000 && Array(heard) == spoken.prefix(heard.count).map(\.left))
  }

  @Test("a guest without a sound card has no sound for displays")
  func noCard() throws {
    let (guest, output) = try Self.machine(GuestProgram.speaking, .none)
    let display = DisplayEar(try DisplayLinkClient(connected: try output.connect()))
    display.link.listen(sound: true, microphone: true)
    try display.process { output.isHeard }
    try guest.machine.resume()
    try display.process { display.bells > 0 }
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    guest.machine.tearDown()
    display.take()
    #expect(display.frames.isEmpty && display.recordings == [false])
  }

  @Test("carrel-vmm gives its sound to the displays of --display-link")
  func program() throws {
    var program = GuestProgram.sounding
    program.stop()
    let running = try RunningProgram(program, ["--display-link", "@/display"])
    let display = DisplayEar(try DisplayLinkClient(path: running.directory.path("display")))
    display.link.listen(sound: true, microphone: false)
    try display.process { display.frames.count >= 4800 }
    #expect(display.frames.contains { $0.left == 8192 })
    #expect(display.recordings.isEmpty)
  }

  @Test("the speaker's tone is heard, too")
  func speaker() throws {
    let bytes = try heard(GuestProgram.speaking)
    let frames = samples(bytes)
    #expect(frames.contains { $0.left == 8192 } && frames.allSatisfy { $0.left == $0.right })
  }
}

/// A display that listens, on the test's own thread.
private final class DisplayEar {
  let link: DisplayLinkClient
  private(set) var frames: [AudioFrame] = []
  private(set) var recordings: [Bool] = []
  private(set) var bells = 0
  private(set) var isOver = false

  init(_ link: DisplayLinkClient) { self.link = link }

  func take() {
    for event in link.process() {
      switch event {
      case .sound(.frames(let frames, _)): self.frames += frames
      case .sound(.end): isOver = true
      case .recording(let isRecording): recordings.append(isRecording)
      case .bell: bells += 1
      default: break
      }
    }
  }

  func process(until condition: () -> Bool) throws {
    try eventually("the display's news") {
      take()
      return condition()
    }
  }
}

/// A driver of virtio-snd.
private struct SoundDriver {
  static let frames = 48_000
  private enum Place {
    static let control: UInt32 = 0x30_0000
    static let receive: UInt32 = 0x30_3000
    static let request: UInt32 = 0x30_6000
    static let answer: UInt32 = 0x30_7000
    static let samples: UInt32 = 0x40_0000
  }

  private var program = GuestProgram()
  private var requests: UInt32 = 0

  private mutating func request(_ words: [UInt32]) {
    requests += 1
    for (index, word) in words.enumerated() {
      program.store(word, at: Place.request + UInt32(index * 4))
    }
    program.describe(
      [(Place.request, UInt32(words.count * 4), false), (Place.answer, 4, true)],
      rings: Place.control)
    program.notifyVirtio(number: requests, rings: Place.control)
    program.awaitUsed(number: requests, rings: Place.control)
  }

  /// Records a second of stream 1 in mono, 16 bits, 48 kHz, and sends it to the serial port.
  static var recorder: GuestProgram {
    var driver = SoundDriver()
    let size = UInt32(frames * 2)
    driver.program.findVirtio(slot: 15 << 3 | 5)
    driver.program.setUpVirtio(queue: 3, rings: Place.receive)
    driver.program.startVirtio(rings: Place.control)
    driver.request([0x101, 1, size, size, 0, 1 | 5 << 8 | 7 << 16])
    driver.request([0x102, 1])
    driver.request([0x104, 1])
    driver.program.store(1, at: Place.request)
    driver.program.describe(
      [(Place.request, 4, false), (Place.samples, size, true), (Place.answer, 8, true)],
      rings: Place.receive)
    driver.program.notifyVirtio(number: 1, rings: Place.receive, queue: 3)
    driver.program.awaitUsed(number: 1, rings: Place.receive)
    driver.program.emit(0xBE)  // mov esi, samples
    driver.program.emit(word: Place.samples)
    driver.program.emit(0xB9)  // mov ecx, size
    driver.program.emit(word: size)
    let loop = driver.program.bytes.count
    driver.program.emit(0x8A, 0x06)  // mov al, [esi]
    driver.program.sendALWhenReady()
    driver.program.emit(0x46, 0x49)  // inc esi; dec ecx
    driver.program.jump(0x75, to: loop)
    driver.program.powerOff()
    return driver.program
  }
}

extension GuestProgram {
  /// Sounds the speaker at 1 kHz from now on.
  fileprivate static var sounding: GuestProgram {
    var program = GuestProgram()
    for (port, value): (UInt16, UInt8) in [
      (0x43, 0xB6), (0x42, 0xA9), (0x42, 0x04), (0x61, 3),
    ] { program.outByte(port, value) }
    return program
  }

  /// Sounds the speaker until OUT2 was high and low, then switches itself off.
  fileprivate static var speaking: GuestProgram {
    var program = sounding
    for condition: UInt8 in [0x74, 0x75] {
      let loop = program.bytes.count
      program.emit(0xE4, 0x61, 0xA8, 0x20)  // in al, 61h; test al, 20h
      program.jump(condition, to: loop)
    }
    program.outByte(0x61, 0)
    program.powerOff()
    return program
  }
}
