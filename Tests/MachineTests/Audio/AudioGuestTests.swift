import DeviceModel
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Sound of a guest", .needsKVM)
struct AudioGuestTests {
  /// Where the list and the samples lie, from the program's start on.
  private static let list = 0x400
  private static let samples = 0x800
  private static let framesPerBuffer = 3000

  /// Plays two buffers and switches itself off when the controller halts.
  private static var program: GuestProgram {
    var program = GuestProgram()
    /// dx = base (ebx: 3, esi: 6) + offset
    func port(_ base: UInt8, _ offset: UInt32) {
      program.emit(0x8D, 0x90 | base)  // lea edx, [base + offset]
      program.emit(word: offset)
    }
    func base(_ register: UInt32, _ into: UInt8) {
      program.outLong(0xCF8, 0x8000_2000 | register)
      program.port(0xCFC)
      program.emit(0xED, 0x24, 0xFC, 0x89, into)  // in eax, dx; and al, ~3; mov into, eax
    }
    func out(_ base: UInt8, _ offset: UInt32, _ value: UInt32, _ code: [UInt8]) {
      port(base, offset)
      program.loadEAX(value)
      for byte in code { program.emit(byte) }
    }
    let origin = UInt32(GuestProgram.origin)
    let (byte, word, long): ([UInt8], [UInt8], [UInt8]) = ([0xEE], [0x66, 0xEF], [0xEF])
    program.outLong(0xCF8, 0x8000_2004)
    program.outWord(0xCFC, 5)
    base(0x10, 0xC3)
    base(0x14, 0xC6)
    out(6, 0x2C, 2, long)
    out(3, 0x02, 0, word)
    out(3, 0x18, 0x0808, word)
    out(6, 0x10, origin + UInt32(list), long)
    out(6, 0x15, 1, byte)
    out(6, 0x1B, 1, byte)
    let loop = program.bytes.count
    port(6, 0x16)
    program.emit(0x66, 0xED, 0xA8, 0x01)  // in ax, dx; test al, 1
    program.jump(0x74, to: loop)
    program.powerOff()
    var data = [UInt8](repeating: 0, count: list - program.bytes.count)
    for buffer in 0..<2 {
      let address = origin + UInt32(samples + buffer * framesPerBuffer * 4)
      // The last one ends in silence.
      let words = [address, UInt32(framesPerBuffer * 2) | UInt32(buffer) << 30]
      for word in words { data += (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
    }
    data += [UInt8](repeating: 0, count: samples - list - 16)
    for frame in frames {
      for sample in [frame.left, frame.right] {
        data += [UInt8(truncatingIfNeeded: sample), UInt8(truncatingIfNeeded: sample >> 8)]
      }
    }
    for byte in data { program.emit(byte) }
    return program
  }

  private static let frames = (0..<2 * framesPerBuffer).map {
    AudioFrame(
      left: Int16(truncatingIfNeeded: $0 &* 7), right: Int16(truncatingIfNeeded: $0 &* -11))
  }

  @Test("what a guest plays on AC'97 is in the file, sample for sample", .timeLimit(.minutes(1)))
  func ac97() throws {
    let guest = try TestGuest(Self.program) { configuration, directory in
      configuration.audio = .init(.ac97, wave: directory.path("sound.wav"))
    }
    let start = MonotonicClock.now
    #expect(try guest.run() == .guestShutdown)
    // As long as it sounds: an eighth of a second.
    #expect(MonotonicClock.now - start >= 125_000_000)
    guest.machine.tearDown()
    let wave = try WaveContents(try guest.directory.read("sound.wav"))
    #expect(wave.frames == Self.frames)
  }

  @Test("a machine that is paused while it plays goes on where it was", .timeLimit(.minutes(1)))
  func paused() throws {
    let guest = try TestGuest(Self.program) { configuration, directory in
      configuration.audio = .init(.ac97, wave: directory.path("sound.wav"))
    }
    try guest.machine.resume()
    try eventually("the guest to play") {
      try WaveContents(try guest.directory.read("sound.wav")).frames.count > 960
    }
    try guest.machine.pause()
    let saved = try guest.machine.save()
    let copy = try Machine(
      {
        var configuration = guest.machine.configuration
        configuration.serial = .none
        configuration.audio.wave = guest.directory.path("copy.wav")
        return configuration
      }(), from: saved)
    try copy.resume()
    #expect(copy.waitForEnd() == .guestShutdown)
    copy.tearDown()
    guest.machine.tearDown()
    let first = try WaveContents(try guest.directory.read("sound.wav")).frames
    let rest = try WaveContents(try guest.directory.read("copy.wav")).frames
    #expect(first == Array(Self.frames.prefix(first.count)))
    #expect(rest == Array(Self.frames.suffix(rest.count)))
    #expect(first.count + rest.count == Self.frames.count)
  }

  @Test("the speaker is heard, whatever the card", .timeLimit(.minutes(1)))
  func speaker() throws {
    let directory = try TemporaryDirectory()
    var configuration = MachineConfiguration()
    configuration.memory = 16 << 20
    configuration.display = .none
    configuration.audio = .init(.none, wave: directory.path("sound.wav"))
    configuration.boot = .rom(path: try directory.write(SpeakerTests.rom, to: "rom"))
    configuration.endsOnReset = true
    let machine = try Machine(configuration)
    try machine.resume()
    _ = machine.waitForEnd()
    machine.tearDown()
    let frames = try WaveContents(try directory.read("sound.wav")).frames
    // Half a period of 1 kHz at least, of a square wave.
    #expect(frames.count >= 24)
    #expect(frames.contains { $0.left == 8192 } && frames.allSatisfy { $0.left == $0.right })
  }
}
