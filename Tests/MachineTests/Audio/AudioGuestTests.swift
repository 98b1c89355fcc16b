import DeviceModel
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Sound of a guest", .needsKVM)
struct AudioGuestTests {
  private static let framesPerBuffer = AC97Program.framesPerBuffer

  /// Plays two buffers and switches itself off when the controller halts.
  private static var program: GuestProgram {
    var program = AC97Program()
    program.run(.output, buffers: 2)
    return program.finished(frames, buffers: 2)
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
