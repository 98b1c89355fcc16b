import DeviceModel
import Devices

/// Keeps what is played.
final class FakeSink: AudioSink {
  var frames: [AudioFrame] = []
  private(set) var rates: [Int] = []
  private(set) var rests = 0
  private var isPlaying = false

  func play(_ frames: [AudioFrame], rate: Int) {
    self.frames += frames
    if rates.last != rate { rates.append(rate) }
    isPlaying = true
  }

  func rest() {
    if isPlaying { rests += 1 }
    isPlaying = false
  }
}

/// Counts up, so that each frame that was recorded is known again.
final class CountingSource: AudioSource {
  private(set) var next: Int16 = 0
  private(set) var rests = 0
  private var isRecording = false

  func record(_ count: Int, rate: Int) -> [AudioFrame] {
    isRecording = true
    return (0..<count).map { _ in
      defer { next &+= 1 }
      return AudioFrame(left: next, right: -next)
    }
  }

  func rest() {
    if isRecording { rests += 1 }
    isRecording = false
  }
}

/// An AC'97 controller and a driver's hand on its registers.
final class AC97Bench {
  enum Box: UInt64 {
    case input = 0x00
    case output = 0x10
    case microphone = 0x20
  }

  static let list: UInt64 = 0x1000
  let memory: FakeMemory
  let clock: FakeClock
  let sink: FakeSink
  let source = CountingSource()
  let microphone = CountingSource()
  let card: AC97

  init(
    memory: FakeMemory = FakeMemory(size: 1 << 20), clock: FakeClock = FakeClock(),
    sink: FakeSink = FakeSink(), state: AC97.State? = nil
  ) {
    self.memory = memory
    self.clock = clock
    self.sink = sink
    card = AC97(
      memory: memory, clock: clock, sink: sink, lineIn: source, microphone: microphone, state: state
    )
    guard state == nil else { return }
    card.function.setRegister(PCIRegister.command, width: 2, value: 5)
    set(0x2C, 4, 2)
    codec[0x02] = 0
    codec[0x18] = 0x0808
  }

  /// The codec's registers.
  var codec: Codec { Codec(ports: card.mixerPorts) }

  struct Codec {
    let ports: any BusTarget

    subscript(offset: UInt64) -> UInt16 {
      get { UInt16(truncatingIfNeeded: ports.read(offset: offset, width: 2)) }
      nonmutating set { ports.write(offset: offset, width: 2, value: UInt64(newValue)) }
    }
  }

  func set(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    card.busMasterPorts.write(offset: offset, width: width, value: value)
  }

  func get(_ offset: UInt64, _ width: Int) -> Int {
    Int(card.busMasterPorts.read(offset: offset, width: width))
  }

  func current(_ box: Box = .output) -> Int { get(box.rawValue + 4, 1) }
  func status(_ box: Box = .output) -> Int { get(box.rawValue + 6, 2) }
  func remaining(_ box: Box = .output) -> Int { get(box.rawValue + 8, 2) }
  var interrupts: Bool {
    card.function.configuration.read(PCIRegister.status, width: 2) & 8 != 0
  }

  /// A descriptor: `control` has IOC in bit 1 and BUP in bit 0.
  func describe(_ index: Int, at address: UInt32, samples: Int, control: UInt32 = 0) {
    let place = Int(Self.list) + index * 8
    let words = [address, UInt32(samples) | control << 30]
    memory.bytes.replaceSubrange(place..<place + 8, with: words.flatMap { LittleEndian.bytes($0) })
  }

  /// Samples that count up from `first`.
  func fill(_ address: Int, from first: Int, count: Int) {
    let bytes = (first..<first + count).flatMap {
      LittleEndian.bytes(Int16(truncatingIfNeeded: $0))
    }
    memory.bytes.replaceSubrange(address..<address + bytes.count, with: bytes)
  }

  func run(_ box: Box = .output, lastValid: Int, control: UInt64 = 0x1D) {
    set(box.rawValue, 4, Self.list)
    set(box.rawValue + 5, 1, UInt64(lastValid))
    set(box.rawValue + 0xB, 1, control)
  }

  func samples(at address: Int, count: Int) -> [Int16] {
    (0..<count).map { LittleEndian.number(memory.bytes, at: address + $0 * 2, Int16.self) }
  }
}

/// Frames whose samples count up from `first`.
func countingFrames(_ first: Int, _ count: Int) -> [AudioFrame] {
  (0..<count).map {
    AudioFrame(
      left: Int16(truncatingIfNeeded: first + $0 * 2),
      right: Int16(truncatingIfNeeded: first + $0 * 2 + 1))
  }
}
