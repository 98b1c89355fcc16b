import DeviceModel
import Glibc
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Sound of the small Linux", .needsKVM, .needsSmallLinux, .serialized)
struct SmallLinuxSoundTests {
  /// Longer than either driver's ring, so that what passed is replaced while it plays.
  private static let seconds = 1.6

  /// Different tones left and right, which rise: no part is like another.
  private static func sound(rate: Int) -> [AudioFrame] {
    (0..<Int(seconds * Double(rate))).map { index in
      let time = Double(index) / Double(rate)
      func tone(_ first: Double, _ last: Double) -> Int16 {
        let turns = first * time + (last - first) * time * time / (2 * seconds)
        return Int16(24_000 * cos(2 * .pi * turns))
      }
      return AudioFrame(left: tone(200, 3000), right: tone(1000, 400))
    }
  }

  /// What is in the file after the guest played `sound`.
  private func recorded(
    _ start: SmallLinux.Start, _ sound: [AudioFrame], rate: Int
  ) throws -> [AudioFrame] {
    let files = try TemporaryDirectory()
    let linux = try SmallLinux(start, wave: files.path("sound.wav"))
    try linux.put(
      sound.flatMap { frame in
        [frame.left, frame.right].flatMap {
          [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)]
        }
      }, in: "/tmp/sound")
    // virtio's card has no mixer.
    if start == .shell {
      for control in ["Master", "PCM"] {
        try linux.run("desktop amixer -q set \(control) 0dB unmute")
      }
    }
    // An interpreted driver is late at times: the longest ring there is. aplay takes the whole
    // of AC'97's for one period if it is not told.
    let ring =
      start == .shell ? "--buffer-size=16384 --period-size=4096" : "--buffer-time=2000000"
    let said = try linux.run(
      "desktop aplay -D hw:0 -q -t raw -f S16_LE -c 2 -r \(rate) \(ring) /tmp/sound 2>&1",
      seconds: 600)
    #expect(said.isEmpty)
    try linux.expectKnownLog()
    linux.machine.tearDown()
    return try WaveContents(try files.read("sound.wav")).frames
  }

  @Test(
    "what aplay plays is in the file, sample for sample and without gaps",
    arguments: [SmallLinux.Start.shell, .virtioShell])
  func samples(start: SmallLinux.Start) throws {
    let sound = Self.sound(rate: 48000)
    let recorded = try recorded(start, sound, rate: 48000)
    let beginning = try #require(recorded.firstIndex { $0 != .silence })
    let heard = recorded.dropFirst(beginning).prefix(sound.count)
    let common = zip(heard, sound).prefix { $0 == $1 }.count
    #expect(common == sound.count, "they part after \(common) of \(recorded.count) frames")
  }

  @Test(
    "sound of another rate is like what aplay plays",
    arguments: [SmallLinux.Start.shell, .virtioShell])
  func likeness(start: SmallLinux.Start) throws {
    let recorded = try recorded(start, Self.sound(rate: 44100), rate: 44100)
    let wanted = Self.sound(rate: 48000)
    let beginning = try #require(recorded.firstIndex { $0 != .silence })
    // Conversion begins and ends some frames early or late.
    let (best, shift) =
      (-8...8).map { shift in
        (Self.likeness(wanted, recorded.dropFirst(max(beginning + shift, 0))), shift)
      }.max { $0.0 < $1.0 } ?? (0, 0)
    #expect(best > 0.99, "moved by \(shift)")
    // A gap anywhere would move all that follows.
    let half = wanted.count / 2
    let later = recorded.dropFirst(max(beginning + shift, 0) + half)
    #expect(Self.likeness(Array(wanted.dropFirst(half)), later) > 0.99)
  }

  /// The cross-correlation of both channels, from -1 to 1.
  private static func likeness(_ wanted: [AudioFrame], _ heard: ArraySlice<AudioFrame>) -> Double {
    guard heard.count >= wanted.count else { return 0 }
    var (product, ours, theirs) = (0.0, 0.0, 0.0)
    for (one, other) in zip(wanted, heard) {
      for (a, b) in [(one.left, other.left), (one.right, other.right)] {
        product += Double(a) * Double(b)
        ours += Double(a) * Double(a)
        theirs += Double(b) * Double(b)
      }
    }
    return product / max((ours * theirs).squareRoot(), 1)
  }
}
