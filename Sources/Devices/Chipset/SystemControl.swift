import DeviceModel

/// PIIX3 reset control register (0xCF9), one byte. `PCIHost` passes it on.
package final class ResetControl: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var register: UInt8
  }

  /// RCPU: going from 0 to 1 resets; SRST chooses a hard reset.
  private static let resetCPU: UInt8 = 1 << 2
  private static let systemReset: UInt8 = 1 << 1

  private weak var machine: (any MachineControl)?
  private var register: UInt8

  package init(machine: any MachineControl, state: State?) {
    self.machine = machine
    register = state?.register ?? 0
  }

  package func saveState() -> State { State(register: register) }
  package func reset() { register = 0 }
  package func read(offset: UInt64, width: Int) -> UInt64 { UInt64(register) }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    let byte = UInt8(truncatingIfNeeded: value)
    let rising = byte & ~register & Self.resetCPU != 0
    register = byte & (Self.resetCPU | Self.systemReset)
    if rising { machine?.requestReset(.resetControlRegister) }
  }
}

/// System control port A (0x92), one byte: fast reset, and the A20 gate, which is
/// remembered but always open, as on every PC since.
package final class SystemControlPortA: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var register: UInt8
  }

  private static let fastReset: UInt8 = 1 << 0
  private static let a20Gate: UInt8 = 1 << 1

  private weak var machine: (any MachineControl)?
  private var register: UInt8

  package init(machine: any MachineControl, state: State?) {
    self.machine = machine
    register = state?.register ?? Self.a20Gate
  }

  package func saveState() -> State { State(register: register) }
  package func reset() { register = Self.a20Gate }
  package func read(offset: UInt64, width: Int) -> UInt64 { UInt64(register) }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    let byte = UInt8(truncatingIfNeeded: value)
    let rising = byte & ~register & Self.fastReset != 0
    register = byte & (Self.fastReset | Self.a20Gate)
    if rising { machine?.requestReset(.systemControlPort) }
  }
}

/// Channel 2 of the interval timer, which the speaker hangs on. `Machine`
/// implements it over the in-kernel PIT.
package protocol SpeakerTimer: AnyObject {
  /// GATE2. Setting it from 0 to 1 starts the channel.
  var gate: Bool { get set }
  /// OUT2 at this moment.
  var output: Bool { get }
  /// Channel 2's present reload value; 0 counts as 65536.
  var reload: UInt16 { get }
}

/// System control port B (0x61), one byte: speaker, and the NMI status bits of a
/// machine whose bus has no errors.
package final class SystemControlPortB: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var register: UInt8
    package var refresh: Bool
  }

  private static let gate: UInt8 = 1 << 0
  private static let speakerData: UInt8 = 1 << 1
  private static let writable: UInt8 = 0x0F
  private static let refreshToggle: UInt8 = 1 << 4
  private static let timerOutput: UInt8 = 1 << 5

  private let timer: any SpeakerTimer
  /// Told when the speaker starts at a frequency in hertz, or falls silent (`nil`).
  private let speaker: ((Int?) -> Void)?
  private var register: UInt8
  private var refresh: Bool

  package init(timer: any SpeakerTimer, speaker: ((Int?) -> Void)?, state: State?) {
    self.timer = timer
    self.speaker = speaker
    register = state?.register ?? 0
    refresh = state?.refresh ?? false
  }

  package func saveState() -> State { State(register: register, refresh: refresh) }

  package func reset() { store(0) }

  package func read(offset: UInt64, width: Int) -> UInt64 {
    // Software times delays by this bit; it changes with every look.
    refresh.toggle()
    return UInt64(
      register | (refresh ? Self.refreshToggle : 0) | (timer.output ? Self.timerOutput : 0))
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    store(UInt8(truncatingIfNeeded: value) & Self.writable)
  }

  private func store(_ value: UInt8) {
    let audible = Self.gate | Self.speakerData
    let before = register
    register = value
    if (before ^ value) & Self.gate != 0 { timer.gate = value & Self.gate != 0 }
    guard (before & audible == audible) != (value & audible == audible) else { return }
    let reload = timer.reload == 0 ? 65_536 : Int(timer.reload)
    speaker?(value & audible == audible ? 1_193_182 / reload : nil)
  }
}

/// A port that takes bytes and hands them on: the POST code port 0x80, and the debug
/// console 0x402, which also answers reads with 0xE9 so that firmware finds it.
package final class DebugPort: BusTarget {
  private let readValue: UInt8
  private let sink: (UInt8) -> Void

  /// The last byte written.
  package private(set) var last: UInt8 = 0

  package init(readValue: UInt8?, sink: @escaping (UInt8) -> Void) {
    self.readValue = readValue ?? 0xFF
    self.sink = sink
  }

  package func read(offset: UInt64, width: Int) -> UInt64 { UInt64(readValue) }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    last = UInt8(truncatingIfNeeded: value)
    sink(last)
  }
}
