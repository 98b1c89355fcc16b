import DeviceModel

/// Drives the AC'97 controller with an arbitrary byte string, as a guest with bad intentions
/// would, while time passes. Shared by the fuzz target and the tests.
package enum AC97Fuzzing {
  /// Interprets `program` as register accesses, descriptors and time, and saves and restores
  /// the controller on the way.
  ///
  /// - Returns: whether no more was played than time has passed for, and a buffer plays as
  ///   it should after a reset, whatever the controller was brought to.
  @discardableResult
  package static func run(_ program: [UInt8]) -> Bool {
    let bench = Bench()
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    func word() -> UInt64 { (0..<4).reduce(0) { value, _ in value << 8 | UInt64(next()) } }
    while let operation = rest.popFirst() {
      let width = 1 << Int(operation >> 4 & 3) & 7
      switch operation & 15 {
      case 0, 1:
        bench.card.mixerPorts.write(
          offset: UInt64(next()), width: 2, value: word() & 0xFFFF)
      case 2: _ = bench.card.mixerPorts.read(offset: UInt64(next()), width: min(max(width, 1), 2))
      case 3...6:
        bench.card.busMasterPorts.write(
          offset: UInt64(next() & 63), width: max(width, 1), value: word())
      case 7: _ = bench.card.busMasterPorts.read(offset: UInt64(next() & 63), width: max(width, 1))
      case 8, 9: bench.describe(next(), page: next(), samples: next(), flags: next())
      case 10: bench.set(box: next(), lastValid: next(), control: next())
      case 11, 12: bench.pass(UInt64(next()) << (operation & 0x10 == 0 ? 12 : 20))
      case 13: bench.restore()
      case 14: bench.card.function.setRegister(PCIRegister.command, width: 2, value: UInt32(next()))
      default: if operation & 0xF0 == 0xF0 { bench.card.reset() }
      }
    }
    return bench.isSound && bench.recovers()
  }

  /// Counts what is played, in time.
  final class Sink: AudioSink {
    private(set) var nanoseconds: UInt64 = 0
    private(set) var last: AudioFrame?

    func play(_ frames: [AudioFrame], rate: Int) {
      nanoseconds += UInt64(frames.count) * 1_000_000_000 / UInt64(rate)
      last = frames.last
    }

    func rest() {}
  }

  private final class Bench {
    private static let list = 0x100
    let memory = StorageFuzzing.Memory()
    let clock = InputFuzzing.Clock()
    let sink = Sink()
    private(set) var card: AC97

    init() {
      card = AC97(
        memory: memory, clock: clock, sink: sink, lineIn: SilentSource(),
        microphone: SilentSource(), state: nil)
      enable()
    }

    private func enable() {
      card.function.setRegister(PCIRegister.command, width: 2, value: 5)
      card.busMasterPorts.write(offset: 0x2C, width: 4, value: 2)
    }

    func restore() {
      clock.forgetTimers()
      card = AC97(
        memory: memory, clock: clock, sink: sink, lineIn: SilentSource(),
        microphone: SilentSource(), state: card.saveState())
    }

    /// One look after another, as drivers and timers do.
    func pass(_ nanoseconds: UInt64) {
      for _ in 0..<4 { clock.advance(by: nanoseconds / 4) }
    }

    /// A descriptor of the list that all boxes get; page 0xFF lies outside RAM.
    func describe(_ index: UInt8, page: UInt8, samples: UInt8, flags: UInt8) {
      let at = Self.list + Int(index & 31) * 8
      let high: UInt8 = page == 0xFF ? 0xF0 : 0
      memory.bytes.replaceSubrange(
        at..<at + 8, with: [0, page, 0, high, samples, flags & 1, 0, flags & 0xC0])
    }

    func set(box: UInt8, lastValid: UInt8, control: UInt8) {
      let base = UInt64(box % 3) * 16
      card.busMasterPorts.write(offset: base, width: 4, value: UInt64(Self.list))
      card.busMasterPorts.write(offset: base + 5, width: 1, value: UInt64(lastValid))
      card.busMasterPorts.write(offset: base + 11, width: 1, value: UInt64(control))
    }

    var isSound: Bool { sink.nanoseconds <= clock.now + 1_000_000 }

    /// 96 frames from a list of one buffer, two milliseconds long.
    func recovers() -> Bool {
      card.reset()
      enable()
      for register: UInt64 in [0x02, 0x18] {
        card.mixerPorts.write(offset: register, width: 2, value: register == 2 ? 0 : 0x0808)
      }
      memory.bytes.replaceSubrange(
        0x2000..<0x2000 + 384, with: Array(repeating: 0x11, count: 384))
      describe(0, page: 0x20, samples: 192, flags: 0x80)
      set(box: 1, lastValid: 0, control: 0x1D)
      pass(4_000_000)
      return card.busMasterPorts.read(offset: 0x16, width: 2) == 0x0F
        && card.function.configuration.read(PCIRegister.status, width: 2) & 8 != 0
        && sink.last == AudioFrame(left: 0x1111, right: 0x1111)
    }
  }
}
