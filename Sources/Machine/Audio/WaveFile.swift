import DeviceModel
import LinuxSystem

/// A machine's sound as a RIFF WAVE file of 16-bit stereo at 48 kHz, written by a thread of
/// its own. Whatever becomes of the process, the file can be played as far as it was written.
package final class WaveFile: AudioOutput, Sendable {
  private struct Unwritten {
    var bytes: [UInt8] = []
    var isEnding = false
    /// Nothing is written any more.
    var hasStopped = false
    var isLate = false
  }

  /// Sizes in the file have 32 bits.
  package static let largest = Int(UInt32.max) - 64
  /// Twenty seconds; what the disk does not take in that time is left out.
  private static let mostUnwritten = 4 << 20

  private let unwritten = Guarded(Unwritten())
  private let thread: Guarded<Thread?>

  /// Makes the file anew.
  ///
  /// - Parameters:
  ///   - largest: bytes of sound; what comes beyond is left out.
  ///   - report: told a line when something cannot be written.
  package init(
    _ path: String, largest: Int = WaveFile.largest,
    report: @escaping @Sendable (String) -> Void = StandardError.report
  ) throws(MachineError) {
    do {
      let file = try FileDescriptor.open(path, [.writable, .create])
      guard file.isRegularFile else {
        throw MachineError(
          .configuration, "\(path) is not a plain file", remedy: "give a file to write sound to")
      }
      try file.setSize(0)
      let writer = Unsynchronized(try WaveWriter(file, largest: largest))
      let unwritten = unwritten
      thread = Guarded(
        try Thread(name: "sound") {
          Self.run(unwritten, writer.value) { report("the sound file \(path): \($0)") }
        })
    } catch let error as MachineError {
      throw error
    } catch {
      throw MachineError(.host, "the sound file \(path) could not be made", cause: error)
    }
  }

  deinit { close() }

  /// Writes what is left. Idempotent. Not under the device lock.
  package func close() {
    unwritten.change { $0.isEnding = true }
    let thread = thread.withLock { thread in
      defer { thread = nil }
      return thread
    }
    thread?.join()
  }

  package var isListening: Bool { true }

  /// What is silence is not written.
  package func rest() {}

  package func write(_ frames: [AudioFrame]) {
    unwritten.change { unwritten in
      guard !unwritten.hasStopped else { return }
      guard unwritten.bytes.count < Self.mostUnwritten else {
        unwritten.isLate = true
        return
      }
      for frame in frames {
        for sample in [frame.left, frame.right] {
          unwritten.bytes.append(UInt8(truncatingIfNeeded: sample))
          unwritten.bytes.append(UInt8(truncatingIfNeeded: sample >> 8))
        }
      }
    }
  }

  private static func run(
    _ unwritten: Guarded<Unwritten>, _ writer: WaveWriter, _ report: (String) -> Void
  ) {
    var wasLate = false
    while true {
      let (bytes, isLate) = unwritten.wait(until: { !$0.bytes.isEmpty || $0.isEnding }) { taken in
        defer { taken.bytes = [] }
        return (taken.bytes, taken.isLate)
      }
      guard !bytes.isEmpty else { return }
      if isLate && !wasLate { report("the disk is too slow; some sound is left out") }
      wasLate = isLate
      do {
        try writer.write(bytes)
      } catch {
        unwritten.withLock { $0.hasStopped = true }
        report("\(error); what comes from now on is left out")
        return
      }
    }
  }
}

/// Bytes of sound, and a header that says how many they are. Lives on the file's thread.
private final class WaveWriter {
  private static let headerSize = 44
  private static let frameSize = 4

  private let file: FileDescriptor
  private let largest: Int
  private var size = 0

  init(_ file: FileDescriptor, largest: Int) throws(SystemError) {
    self.file = file
    self.largest = largest
    try put(Self.header(size: 0), at: 0)
  }

  /// - Throws: when the disk is full, fails, or the file is as large as it can be; what was
  ///   written before remains.
  func write(_ bytes: [UInt8]) throws {
    let room = min(bytes.count, largest - size) / Self.frameSize * Self.frameSize
    try put(Array(bytes.prefix(room)), at: Self.headerSize + size)
    size += room
    // Sizes after what they count: a file cut off here is whole but for its end.
    try put(Self.header(size: size), at: 0)
    guard room == bytes.count else {
      throw MachineError(.host, "it has \(size) bytes, which is as much as it can hold")
    }
  }

  private func put(_ bytes: [UInt8], at offset: Int) throws(SystemError) {
    var failure: SystemError?
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do throws(SystemError) {
        try file.write(buffer, offset: UInt64(offset))
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }

  /// RIFF with the chunks "fmt " (PCM, two channels of 16 bits) and "data".
  private static func header(size: Int) -> [UInt8] {
    func word(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(value >> ($0 * 8) & 0xFF) } }
    func half(_ value: Int) -> [UInt8] { Array(word(value).prefix(2)) }
    return Array("RIFF".utf8) + word(headerSize - 8 + size) + Array("WAVEfmt ".utf8) + word(16)
      + half(1) + half(2) + word(AudioMixer.rate) + word(AudioMixer.rate * frameSize)
      + half(frameSize) + half(16) + Array("data".utf8) + word(size)
  }
}
