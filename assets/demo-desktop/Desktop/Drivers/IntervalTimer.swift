/// Channel 0 of the 8254, off unless something on the screen moves.
struct IntervalTimer {
  static let frequency = 1_193_182
  private(set) var rate = -1

  /// Interrupts `rate` times a second (19…1000); 0 stops.
  mutating func run(rate newRate: Int) {
    guard newRate != rate else { return }
    rate = newRate
    if rate == 0 {
      Interrupts.timer.mask()
      // Mode 0 counts down once and then stays silent.
      Port(0x43).byte = 0x30
      Port(0x40).byte = 0xFF
      Port(0x40).byte = 0xFF
      return
    }
    let divisor = Self.frequency / max(19, min(1000, rate))
    Port(0x43).byte = 0x34  // mode 2
    Port(0x40).byte = UInt8(truncatingIfNeeded: divisor)
    Port(0x40).byte = UInt8(truncatingIfNeeded: divisor >> 8)
    Interrupts.timer.unmask()
  }
}

/// The PC speaker: channel 2 of the 8254 gated by port 0x61.
enum Speaker {
  static func start(frequency: Int) {
    let divisor = IntervalTimer.frequency / max(20, frequency)
    Port(0x43).byte = 0xB6
    Port(0x42).byte = UInt8(truncatingIfNeeded: divisor)
    Port(0x42).byte = UInt8(truncatingIfNeeded: divisor >> 8)
    Port(0x61).byte |= 3
  }

  static func stop() { Port(0x61).byte &= ~3 }
}
