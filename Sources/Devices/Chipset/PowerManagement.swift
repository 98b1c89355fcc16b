import DeviceModel

/// Intel 82371AB (PIIX4) function 3: ACPI fixed registers (PM1 event and control, PM
/// timer, general purpose events) behind a base register, and the advanced power
/// management ports 0xB2/0xB3. Beyond the PIIX4 there is a fixed sleep button.
///
/// The system control interrupt is wired to IRQ 9.
package final class PowerManagement: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 2
    package var function: PCIFunction.State
    package var status: UInt16
    package var enable: UInt16
    package var control: UInt16
    package var command: UInt8
    package var commandStatus: UInt8
    /// Half periods of the timer (toggles of its top bit) already seen.
    package var timerHalves: UInt64
    /// GPSTS and GPEN.
    package var generalStatus: UInt16 = 0
    package var generalEnable: UInt16 = 0
    /// The guest was once refused a sleeping state since power-on.
    package var hasRefusedSleep = false
  }

  /// PM1 status and enable bits (ACPI 6.5, 4.8.4.1).
  private enum Event {
    static let timer: UInt16 = 1 << 0
    static let globalLock: UInt16 = 1 << 5
    static let powerButton: UInt16 = 1 << 8
    static let sleepButton: UInt16 = 1 << 9
    static let realTimeClock: UInt16 = 1 << 10
    static let wake: UInt16 = 1 << 15
    static let all: UInt16 = enables | wake
    static let enables: UInt16 =
      timer | globalLock | powerButton | sleepButton | realTimeClock
  }

  /// General purpose events, bits of GPSTS and GPEN that are in use.
  package enum GeneralEvent {
    /// The machine has another generation identifier (`\_GPE._E05`).
    package static let generationChanged = 5
    static let all: UInt16 = 1 << generationChanged
  }

  private enum ControlBits {
    static let sciEnable: UInt16 = 1 << 0
    static let sleepEnable: UInt16 = 1 << 13
    static let sleepType: UInt16 = 7 << 10
    static let writable: UInt16 = 0x1C06
  }

  /// What FADT names as ACPI_ENABLE and ACPI_DISABLE.
  package static let acpiEnable: UInt8 = 0xF1
  package static let acpiDisable: UInt8 = 0xF0
  /// SLP_TYP for S5 on PIIX4, as the `_S5` package says too.
  package static let softOff: UInt16 = 0
  package static let registerCount: UInt64 = 64
  /// Where SeaBIOS puts the registers, and where they are without firmware.
  package static let defaultBase: UInt16 = 0x0600

  private static let timerFrequency: UInt64 = 3_579_545
  private static let baseRegister = 0x40
  private static let miscellaneous = 0x80

  package let function: PCIFunction
  package let maximumAccessWidth = 4
  private let interrupt: any InterruptLine
  private let clock: any DeviceClock
  private weak var machine: (any MachineControl)?
  private var timer: (any DeviceTimer)?
  private var state: State

  package init(
    interrupt: any InterruptLine, clock: any DeviceClock, machine: any MachineControl,
    state: State?
  ) {
    self.interrupt = interrupt
    self.clock = clock
    self.machine = machine
    function = PCIFunction(
      name: "PIIX4 power management",
      identity: PCIIdentity(
        vendor: 0x8086, device: 0x7113, revision: 0x03, classCode: 0x068000, interruptPin: 1))
    function.describe {
      $0.set(PCIRegister.status, width: 2, value: 0x0280)
      $0.set(Self.baseRegister, width: 4, value: 1)
      $0.allowWrites(Self.baseRegister, width: 2, mask: 0xFFC0)
      // APMC_EN preset: system management mode is set up, do not try.
      $0.set(0x58, width: 4, value: 0x0200_0000)
      $0.allowWrites(0x58, width: 4, mask: 0xFFFF_FFFF)
      $0.allowWrites(Self.miscellaneous, width: 1, mask: 0x0F)
      $0.set(0x90, width: 4, value: 1)
      $0.allowWrites(0x90, width: 2, mask: 0xFFF0)
      $0.allowWrites(0xD2, width: 1, mask: 0x0F)
    }
    function.restore(state?.function)
    self.state = state ?? Self.powerOn(function)
    if state == nil { self.state.timerHalves = Self.ticks(at: clock.now) >> 23 }
    function.addIOWindow(
      "registers", size: Self.registerCount, base: (Self.baseRegister, 0xFFC0),
      enable: (Self.miscellaneous, 1), self)
    timer = clock.makeTimer { [weak self] in self?.update() }
    update()
  }

  private static func powerOn(_ function: PCIFunction) -> State {
    State(
      function: function.saveState(), status: 0, enable: 0, control: 0, command: 0,
      commandStatus: 0, timerHalves: 0)
  }

  package func saveState() -> State {
    catchUp()
    state.function = function.saveState()
    return state
  }

  package func reset() {
    function.reset()
    let halves = Self.ticks(at: clock.now) >> 23
    state = Self.powerOn(function)
    state.timerHalves = halves
    update()
  }

  /// The person at the machine pressed the power button for a moment.
  package func pressPowerButton() {
    state.status |= Event.powerButton
    update()
  }

  /// The person at the machine pressed the sleep button for a moment.
  package func pressSleepButton() {
    state.status |= Event.sleepButton
    update()
  }

  /// Something outside the fixed registers happened: bit `event` of GPSTS.
  package func raise(generalEvent event: Int) {
    guard (0..<16).contains(event) else { return }
    state.generalStatus |= 1 << UInt16(event) & GeneralEvent.all
    update()
  }

  /// Whether a guest would notice the power button.
  package var heedsPowerButton: Bool {
    state.control & ControlBits.sciEnable != 0 && state.enable & Event.powerButton != 0
  }

  // MARK: Fixed registers

  package func read(offset: UInt64, width: Int) -> UInt64 {
    var value: UInt64 = 0
    let register = offset & ~3
    let low = word(Int(truncatingIfNeeded: register))
    value = UInt64(low) >> ((offset & 3) * 8)
    return width >= 4 ? value : value & ((1 << UInt64(width * 8)) - 1)
  }

  private func word(_ register: Int) -> UInt32 {
    switch register {
    case 0:
      catchUp()
      return UInt32(state.status) | UInt32(state.enable) << 16
    case 4: return UInt32(state.control)
    case 8: return UInt32(truncatingIfNeeded: Self.ticks(at: clock.now) & 0xFF_FFFF)
    case 12: return UInt32(state.generalStatus) | UInt32(state.generalEnable) << 16
    default: return 0
    }
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    // Wider writes act as the bytes they are made of, low first, but SLP_EN last.
    catchUp()
    for index in 0..<UInt64(width) {
      let byte = UInt16(truncatingIfNeeded: value >> (index * 8) & 0xFF)
      let at = offset &+ index
      let shift = (at & 1) * 8
      let keep: UInt16 = shift == 0 ? 0xFF00 : 0x00FF
      switch at & ~1 {
      case 0: state.status &= ~(byte << shift & Event.all)
      case 2: state.enable = (state.enable & keep | byte << shift) & Event.enables
      case 4: writeControl(byte << shift, keep: keep)
      case 12: state.generalStatus &= ~(byte << shift)
      case 14:
        state.generalEnable = (state.generalEnable & keep | byte << shift) & GeneralEvent.all
      default: break
      }
    }
    update()
  }

  private func writeControl(_ value: UInt16, keep: UInt16) {
    let mask = ControlBits.writable & ~keep
    state.control = state.control & ~mask | value & mask
    guard value & ControlBits.sleepEnable != 0 else { return }
    let type = (state.control & ControlBits.sleepType) >> 10
    if type == Self.softOff {
      machine?.requestPowerOff()
    } else if !state.hasRefusedSleep {
      // There is no S1 to S4, as the absent _S1 to _S4 say. Told once, lest a guest
      // that does not believe it fills the host's log.
      state.hasRefusedSleep = true
      machine?.reportRefusedSleep(type: type)
    }
  }

  // MARK: Timer

  private static func ticks(at now: UInt64) -> UInt64 {
    let seconds = now / 1_000_000_000
    let rest = now % 1_000_000_000
    return seconds &* timerFrequency &+ rest * timerFrequency / 1_000_000_000
  }

  /// The first nanosecond at which the timer has counted `ticks`.
  private static func time(of ticks: UInt64) -> UInt64 {
    let seconds = ticks / timerFrequency
    let rest = ticks % timerFrequency
    return seconds &* 1_000_000_000
      &+ (rest * 1_000_000_000 + timerFrequency - 1) / timerFrequency
  }

  /// TMR_STS is set whenever bit 23 of the timer toggles.
  private func catchUp() {
    let halves = Self.ticks(at: clock.now) >> 23
    guard halves != state.timerHalves else { return }
    state.timerHalves = halves
    state.status |= Event.timer
  }

  private func update() {
    catchUp()
    let pending =
      state.status & state.enable & Event.enables != 0
      || state.generalStatus & state.generalEnable != 0
    interrupt.setLevel(pending && state.control & ControlBits.sciEnable != 0)
    if state.enable & Event.timer != 0 && state.status & Event.timer == 0 {
      timer?.arm(at: Self.time(of: (state.timerHalves &+ 1) << 23))
    } else {
      timer?.cancel()
    }
  }

  // MARK: Advanced power management ports

  /// 0xB2, 0xB3. Without system management mode the command port only switches
  /// between legacy and ACPI mode.
  package private(set) lazy var commandPorts: any BusTarget = CommandPorts(self)

  private final class CommandPorts: BusTarget {
    unowned let owner: PowerManagement

    init(_ owner: PowerManagement) { self.owner = owner }

    func read(offset: UInt64, width: Int) -> UInt64 {
      UInt64(offset == 0 ? owner.state.command : owner.state.commandStatus)
    }

    func write(offset: UInt64, width: Int, value: UInt64) {
      let byte = UInt8(truncatingIfNeeded: value)
      if offset != 0 {
        owner.state.commandStatus = byte
        return
      }
      owner.state.command = byte
      if byte == PowerManagement.acpiEnable { owner.state.control |= ControlBits.sciEnable }
      if byte == PowerManagement.acpiDisable { owner.state.control &= ~ControlBits.sciEnable }
      owner.update()
    }
  }
}
