import DeviceModel
import LinuxSystem
import Machine
import TestSupport
import Testing

/// What a player finds in a WAVE file.
struct WaveContents {
  let header: [UInt8]
  let frames: [AudioFrame]

  /// - Throws: when the sizes in the header are not those of the file.
  init(_ bytes: [UInt8]) throws {
    func word(_ place: Int) -> Int { (0..<4).reduce(0) { $0 | Int(bytes[place + $1]) << ($1 * 8) } }
    try #require(bytes.count >= 44)
    header = Array(bytes.prefix(44))
    let size = word(40)
    try #require(word(4) == size + 36 && bytes.count >= size + 44)
    func sample(_ place: Int) -> Int16 {
      Int16(bitPattern: UInt16(bytes[place]) | UInt16(bytes[place + 1]) << 8)
    }
    frames = stride(from: 44, to: 44 + size, by: 4).map {
      AudioFrame(left: sample($0), right: sample($0 + 2))
    }
  }
}

@Suite("Sound file")
struct WaveFileTests {
  private static func frames(_ first: Int, _ count: Int) -> [AudioFrame] {
    (first..<first + count).map {
      AudioFrame(left: Int16(truncatingIfNeeded: $0), right: Int16(truncatingIfNeeded: -$0))
    }
  }

  @Test("it has a header for 16-bit stereo at 48 kHz, and then what was played")
  func contents() throws {
    let directory = try TemporaryDirectory()
    try directory.write(Array(repeating: 7, count: 100_000), to: "a.wav")
    let file = try WaveFile(directory.path("a.wav"))
    for start in stride(from: 0, to: 9600, by: 960) { file.write(Self.frames(start, 960)) }
    file.close()
    let bytes = try directory.read("a.wav")
    #expect(bytes.count == 44 + 9600 * 4)
    let wave = try WaveContents(bytes)
    #expect(wave.frames == Self.frames(0, 9600))
    #expect(
      Array(wave.header[8..<40])
        == Array("WAVEfmt ".utf8) + [16, 0, 0, 0, 1, 0, 2, 0, 0x80, 0xBB, 0, 0]
        + [0, 0xEE, 2, 0, 4, 0, 16, 0] + Array("data".utf8))
    #expect(Array(wave.header.prefix(4)) == Array("RIFF".utf8))
  }

  @Test("at any time it can be played as far as it was written")
  func unfinished() throws {
    let directory = try TemporaryDirectory()
    let file = try WaveFile(directory.path("a.wav"))
    #expect(try WaveContents(try directory.read("a.wav")).frames.isEmpty)
    for round in 1...3 {
      file.write(Self.frames((round - 1) * 480, 480))
      try eventually("the file to have what was played") {
        let frames = try WaveContents(try directory.read("a.wav")).frames
        return frames == Self.frames(0, round * 480)
      }
    }
    file.close()
  }

  @Test("a full disk is told of once, and what fitted remains", .needsRoot)
  func full() throws {
    let disk = try SmallDisk(kibibytes: 64)
    let lines = Guarded<[String]>([])
    let file = try WaveFile("\(disk.path)/a.wav") { line in lines.change { $0.append(line) } }
    for start in stride(from: 0, to: 40_000, by: 4000) { file.write(Self.frames(start, 4000)) }
    lines.wait(until: { !$0.isEmpty }) { _ in }
    file.write(Self.frames(0, 4000))
    file.close()
    let said = lines.withLock { $0 }
    #expect(said.count == 1 && said[0].contains("\(disk.path)/a.wav"))
    #expect(said[0].contains("No space left"))
    let frames = try WaveContents(try Files.read("\(disk.path)/a.wav")).frames
    #expect(frames == Self.frames(0, frames.count) && frames.count % 4000 == 0)
  }

  @Test("beyond what its sizes can say nothing is written")
  func largest() throws {
    let directory = try TemporaryDirectory()
    let lines = Guarded<[String]>([])
    let file = try WaveFile(directory.path("a.wav"), largest: 1000) { line in
      lines.change { $0.append(line) }
    }
    file.write(Self.frames(0, 300))
    lines.wait(until: { !$0.isEmpty }) { _ in }
    file.close()
    #expect(try WaveContents(try directory.read("a.wav")).frames == Self.frames(0, 250))
    #expect(lines.withLock { $0 }.count == 1)
  }

  @Test("what is no plain file, or cannot be made, is refused")
  func refused() throws {
    let directory = try TemporaryDirectory()
    #expect(throws: MachineError.self) { try WaveFile("/dev/null") }
    #expect(throws: MachineError.self) { try WaveFile(directory.path("missing/a.wav")) }
  }
}
