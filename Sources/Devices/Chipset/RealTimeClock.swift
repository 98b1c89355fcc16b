import DeviceModel

/// Motorola MC146818A real-time clock with 128 bytes of CMOS RAM, on two ports
/// (0x70 index, 0x71 data).
///
/// Time is the host's UTC plus what the guest set; nothing runs between accesses
/// unless an interrupt is enabled.
package final class RealTimeClock: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var index: UInt8 = 0
    /// Time and alarm, control registers, RAM. The time registers count only while
    /// the clock is stopped.
    var registers: [UInt8]
    /// Guest time minus host time: seconds, and nanoseconds 0 ..< 1e9.
    var offsetSeconds: Int64 = 0
    var offsetNanoseconds: Int64 = 0
    /// The second, and period of the periodic interrupt, that flags account for.
    var lastSecond: Int64 = 0
    var lastPeriod: UInt64 = 0
  }

  private enum Register {
    static let seconds = 0x00
    static let secondsAlarm = 0x01
    static let minutes = 0x02
    static let minutesAlarm = 0x03
    static let hours = 0x04
    static let hoursAlarm = 0x05
    static let dayOfWeek = 0x06
    static let dayOfMonth = 0x07
    static let month = 0x08
    static let year = 0x09
    static let a = 0x0A
    static let b = 0x0B
    static let c = 0x0C
    static let d = 0x0D
    static let century = 0x32
    static let time: Set<Int> = [
      seconds, minutes, hours, dayOfWeek, dayOfMonth, month, year, century,
    ]
  }

  /// Register A: update in progress.
  private static let updateInProgress: UInt8 = 1 << 7
  /// Register B.
  private enum Control {
    static let set: UInt8 = 1 << 7
    static let periodic: UInt8 = 1 << 6
    static let alarm: UInt8 = 1 << 5
    static let updateEnded: UInt8 = 1 << 4
    static let squareWave: UInt8 = 1 << 3
    static let binary: UInt8 = 1 << 2
    static let hours24: UInt8 = 1 << 1
  }
  /// Register C, at the places of their enables in B.
  private enum Flag {
    static let request: UInt8 = 1 << 7
    static let periodic: UInt8 = 1 << 6
    static let alarm: UInt8 = 1 << 5
    static let updateEnded: UInt8 = 1 << 4
  }

  private static let second: Int64 = 1_000_000_000
  /// UIP rises this long before the update (datasheet table 6).
  private static let updateLead: Int64 = 244_000

  private let interrupt: any InterruptLine
  private let clock: any DeviceClock
  private var timer: (any DeviceTimer)?
  private var state: State

  /// - Parameter nvram: initial CMOS RAM bytes by index (0x0E … 0x7F).
  package init(
    interrupt: any InterruptLine, clock: any DeviceClock, nvram: [Int: UInt8], state: State?
  ) {
    self.interrupt = interrupt
    self.clock = clock
    if let state, state.registers.count == 128 {
      self.state = state
    } else {
      var registers = [UInt8](repeating: 0, count: 128)
      registers[Register.a] = 0x26
      registers[Register.b] = Control.hours24
      for (index, value) in nvram where (0x0E..<0x80).contains(index) { registers[index] = value }
      self.state = State(registers: registers)
      self.state.lastSecond = guestTime.seconds
      self.state.lastPeriod = period(at: clock.now)
    }
    timer = clock.makeTimer { [weak self] in self?.update() }
    update()
  }

  package func saveState() -> State {
    catchUp()
    return state
  }

  /// RESET#: interrupts off and flags clear; time and RAM go on.
  package func reset() {
    catchUp()
    state.index = 0
    state.registers[Register.b] &=
      ~(Control.periodic | Control.alarm | Control.updateEnded | Control.squareWave)
    state.registers[Register.c] = 0
    update()
  }

  /// CMOS RAM, for tests and for what the host wants to know.
  package func nvram(at index: Int) -> UInt8 { state.registers[index & 0x7F] }

  // MARK: Ports

  package func read(offset: UInt64, width: Int) -> UInt64 {
    guard offset & 1 == 1 else { return 0xFF }
    let index = Int(state.index)
    catchUp()
    switch index {
    case Register.a:
      return UInt64(state.registers[index] | (isUpdating ? Self.updateInProgress : 0))
    case Register.c:
      let flags = state.registers[Register.c]
      state.registers[Register.c] = 0
      update()
      return UInt64(flags)
    case Register.d: return 0x80
    case _ where Register.time.contains(index):
      if isRunning { loadTime() }
      return UInt64(state.registers[index])
    default: return UInt64(state.registers[index])
    }
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    let byte = UInt8(truncatingIfNeeded: value)
    guard offset & 1 == 1 else {
      // Bit 7 masks NMI, which nothing raises.
      state.index = byte & 0x7F
      return
    }
    catchUp()
    let index = Int(state.index)
    switch index {
    case Register.a: writeA(byte)
    case Register.b: writeB(byte)
    case Register.c, Register.d: break
    case _ where Register.time.contains(index):
      if isRunning {
        loadTime()
        state.registers[index] = byte
        storeTime()
      } else {
        state.registers[index] = byte
      }
    default: state.registers[index] = byte
    }
    update()
  }

  private func writeA(_ value: UInt8) {
    let wasRunning = isRunning
    if wasRunning { loadTime() }
    let wasReset = dividerHeld
    state.registers[Register.a] = value & ~Self.updateInProgress
    if wasReset && !dividerHeld {
      // The first update comes half a second after the divider is let go.
      let wall = Int64(clock.wallClock.nanoseconds)
      state.offsetNanoseconds = (Self.second / 2 - wall + Self.second) % Self.second
    }
    if !wasRunning && isRunning { storeTime() }
    state.lastPeriod = period(at: clock.now)
  }

  private func writeB(_ value: UInt8) {
    let wasRunning = isRunning
    if wasRunning { loadTime() }
    // SET clears UIE (datasheet, register B).
    let keep = value & Control.set != 0 ? ~Control.updateEnded : 0xFF
    state.registers[Register.b] = value & keep
    if !wasRunning && isRunning { storeTime() }
  }

  // MARK: Time

  private var dividerHeld: Bool { state.registers[Register.a] & 0x60 == 0x60 }

  /// With a 32,768 Hz crystal only divider setting 010 counts seconds.
  private var isRunning: Bool {
    state.registers[Register.a] & 0x70 == 0x20 && state.registers[Register.b] & Control.set == 0
  }

  private var guestTime: (seconds: Int64, nanoseconds: Int64) {
    let wall = clock.wallClock
    let nanoseconds = Int64(wall.nanoseconds) + state.offsetNanoseconds
    return (
      wall.seconds &+ state.offsetSeconds &+ nanoseconds / Self.second,
      nanoseconds % Self.second
    )
  }

  private var isUpdating: Bool {
    isRunning && guestTime.nanoseconds >= Self.second - Self.updateLead
  }

  /// Fills the time registers from the running clock.
  private func loadTime() {
    let time = CalendarTime(seconds: guestTime.seconds)
    state.registers[Register.seconds] = encode(time.second)
    state.registers[Register.minutes] = encode(time.minute)
    state.registers[Register.hours] = encodeHour(time.hour)
    state.registers[Register.dayOfWeek] = encode(time.weekday)
    state.registers[Register.dayOfMonth] = encode(time.day)
    state.registers[Register.month] = encode(time.month)
    let year = min(max(time.year, 0), 9999)
    state.registers[Register.year] = encode(year % 100)
    state.registers[Register.century] = encode(year / 100)
  }

  /// Lets the clock run on from the time registers.
  private func storeTime() {
    let time = CalendarTime(
      year: decode(state.registers[Register.century]) * 100
        + decode(state.registers[Register.year]),
      month: decode(state.registers[Register.month]),
      day: decode(state.registers[Register.dayOfMonth]),
      hour: decodeHour(state.registers[Register.hours]),
      minute: decode(state.registers[Register.minutes]),
      second: decode(state.registers[Register.seconds]))
    state.offsetSeconds =
      state.offsetSeconds &+ (time.secondsSince1970 &- guestTime.seconds)
    state.lastSecond = guestTime.seconds
  }

  private var isBinary: Bool { state.registers[Register.b] & Control.binary != 0 }

  private func encode(_ value: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: isBinary ? value : value / 10 * 16 + value % 10)
  }

  private func decode(_ value: UInt8) -> Int {
    isBinary ? Int(value) : Int(value >> 4) * 10 + Int(value & 15)
  }

  private func encodeHour(_ hour: Int) -> UInt8 {
    if state.registers[Register.b] & Control.hours24 != 0 { return encode(hour) }
    return encode(hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0)
  }

  private func decodeHour(_ value: UInt8) -> Int {
    if state.registers[Register.b] & Control.hours24 != 0 { return decode(value) }
    return decode(value & 0x7F) % 12 + (value & 0x80 != 0 ? 12 : 0)
  }

  // MARK: Alarm

  /// The next second after `last` at which the alarm goes off; nil if the registers
  /// name no time of day.
  private func nextAlarm(after last: Int64) -> Int64? {
    let hour = alarmField(Register.hoursAlarm, limit: 24)
    let minute = alarmField(Register.minutesAlarm, limit: 60)
    let second = alarmField(Register.secondsAlarm, limit: 60)
    guard let hour, let minute, let second else { return nil }
    var candidate = last &+ 1
    // At most a day of hours, then an hour of minutes, then a minute of seconds.
    for _ in 0..<200 {
      let time = CalendarTime(seconds: candidate)
      if !hour.matches(time.hour) {
        candidate = candidate &+ Int64(3600 - time.minute * 60 - time.second)
      } else if !minute.matches(time.minute) {
        candidate = candidate &+ Int64(60 - time.second)
      } else if !second.matches(time.second) {
        candidate = candidate &+ 1
      } else {
        return candidate
      }
    }
    return nil
  }

  private enum AlarmField {
    case any
    case exactly(Int)

    func matches(_ value: Int) -> Bool {
      switch self {
      case .any: true
      case .exactly(let wanted): value == wanted
      }
    }
  }

  /// An alarm register: top bits 11 are "don't care"; nil names no time.
  private func alarmField(_ register: Int, limit: Int) -> AlarmField? {
    let value = state.registers[register]
    if value & 0xC0 == 0xC0 { return .any }
    let decoded = register == Register.hoursAlarm ? decodeHour(value) : decode(value)
    return decoded < limit ? .exactly(decoded) : nil
  }

  // MARK: Interrupts

  /// Ticks of 32,768 Hz since the machine was made, divided by the selected rate; 0
  /// without one.
  private func period(at now: UInt64) -> UInt64 {
    let shift = periodShift
    guard shift > 0 else { return 0 }
    let ticks = now / 1_000_000_000 &* 32_768 &+ now % 1_000_000_000 * 32_768 / 1_000_000_000
    return ticks >> UInt64(shift)
  }

  /// log2 of the period in ticks: rate 3 is 122 µs … rate 15 is 500 ms; 1 and 2 stand
  /// for 8 and 9 (datasheet table 5).
  private var periodShift: Int {
    let control = state.registers[Register.a]
    let rate = Int(control & 0x0F)
    guard rate != 0, control & 0x70 == 0x20 else { return 0 }
    return rate <= 2 ? rate + 6 : rate - 1
  }

  /// Sets the flags of everything that happened since the last look.
  private func catchUp() {
    defer { setRequest() }
    let current = period(at: clock.now)
    if current != state.lastPeriod {
      state.lastPeriod = current
      if periodShift > 0 { state.registers[Register.c] |= Flag.periodic }
    }
    let seconds = guestTime.seconds
    guard isRunning, seconds != state.lastSecond else { return }
    state.registers[Register.c] |= Flag.updateEnded
    let from = seconds > state.lastSecond ? state.lastSecond : seconds &- 1
    if let alarm = nextAlarm(after: from), alarm <= seconds {
      state.registers[Register.c] |= Flag.alarm
    }
    state.lastSecond = seconds
  }

  private func setRequest() {
    let flags = state.registers[Register.c] & 0x70
    let request = flags & state.registers[Register.b] != 0
    state.registers[Register.c] = flags | (request ? Flag.request : 0)
  }

  private func update() {
    catchUp()
    let asserted = state.registers[Register.c] & Flag.request != 0
    interrupt.setLevel(asserted)
    let deadline = asserted ? nil : nextDeadline
    if let deadline { timer?.arm(at: deadline) } else { timer?.cancel() }
  }

  /// When the next enabled interrupt is due. While one is pending nothing more can be
  /// seen, so nothing is due until register C is read.
  private var nextDeadline: UInt64? {
    let enabled = state.registers[Register.b]
    let now = clock.now
    var deadlines: [UInt64] = []
    if enabled & Control.periodic != 0 && periodShift > 0 {
      let tick = (period(at: now) &+ 1) << UInt64(periodShift)
      deadlines.append(
        tick / 32_768 &* 1_000_000_000
          &+ (tick % 32_768 * 1_000_000_000 + 32_767) / 32_768)
    }
    let time = guestTime
    let untilSecond = UInt64(Self.second - time.nanoseconds)
    if isRunning && enabled & Control.updateEnded != 0 { deadlines.append(now &+ untilSecond) }
    if isRunning && enabled & Control.alarm != 0, let alarm = nextAlarm(after: time.seconds) {
      deadlines.append(now &+ untilSecond &+ UInt64(alarm - time.seconds - 1) &* 1_000_000_000)
    }
    return deadlines.min()
  }
}
