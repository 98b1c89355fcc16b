import DeviceModel

/// National Semiconductor PC16550D UART: eight registers, at 0x3F8 for COM1.
///
/// Bytes leave at once (the line is a queue of the host); what the host cannot take
/// yet stays in the transmitter, and is offered again a character time or more later.
/// Bytes that arrive faster than the guest reads wait outside the FIFO, and then at
/// the host, as with a modem that heeds RTS: only who pays `room` no attention
/// overruns it. The interrupt output is not gated by OUT2.
package final class UART16550: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var divisor: UInt16 = 12
    var interruptEnable: UInt8 = 0
    var fifoControl: UInt8 = 0
    var lineControl: UInt8 = 0
    var modemControl: UInt8 = 0
    /// OE, PE, FE, BI; DR, THRE and TEMT follow from the queues.
    var lineErrors: UInt8 = 0
    var modemDelta: UInt8 = 0
    var scratch: UInt8 = 0
    var receiveFIFO: [UInt8] = []
    var backlog: [UInt8] = []
    var transmitFIFO: [UInt8] = []
    var transmitterEmptyPending = false
    var timeoutPending = false
    /// `DeviceClock.now` deadlines.
    var timeoutDeadline: UInt64?
    var transmitDeadline: UInt64?
    /// How often in a row the host took nothing.
    var refusals = 0
  }

  private enum Enable {
    static let received: UInt8 = 1 << 0
    static let transmitterEmpty: UInt8 = 1 << 1
    static let lineStatus: UInt8 = 1 << 2
    static let modemStatus: UInt8 = 1 << 3
  }

  private enum Identification {
    static let none: UInt8 = 0x01
    static let modemStatus: UInt8 = 0x00
    static let transmitterEmpty: UInt8 = 0x02
    static let received: UInt8 = 0x04
    static let lineStatus: UInt8 = 0x06
    static let timeout: UInt8 = 0x0C
    static let fifosEnabled: UInt8 = 0xC0
  }

  private enum LineStatus {
    static let dataReady: UInt8 = 1 << 0
    static let overrun: UInt8 = 1 << 1
    static let breakInterrupt: UInt8 = 1 << 4
    static let holdingEmpty: UInt8 = 1 << 5
    static let transmitterEmpty: UInt8 = 1 << 6
    static let fifoError: UInt8 = 1 << 7
    static let errors: UInt8 = 0x1E
  }

  private static let divisorLatch: UInt8 = 1 << 7
  private static let setBreak: UInt8 = 1 << 6
  private static let loopback: UInt8 = 1 << 4
  private static let fifoDepth = 16
  private static let backlogLimit = 4096
  private static let refusalLimit = 16
  private static let longestRetry: UInt64 = 10_000_000

  private let interrupt: any InterruptLine
  private var backend: (any CharacterBackend)?
  private let clock: any DeviceClock
  private var state: State
  private var timeout: (any DeviceTimer)?
  private var retry: (any DeviceTimer)?
  /// The backend found no room and waits to hear of some.
  private var backendWaits = false

  /// - Parameter backend: what the port is connected to; without one nothing
  ///   arrives, and what is sent is dropped.
  package init(
    interrupt: any InterruptLine, backend: (any CharacterBackend)?, clock: any DeviceClock,
    state: State?
  ) {
    self.interrupt = interrupt
    self.clock = clock
    self.state = state ?? State()
    self.state.receiveFIFO = Array(self.state.receiveFIFO.prefix(Self.fifoDepth))
    self.state.transmitFIFO = Array(self.state.transmitFIFO.prefix(Self.fifoDepth))
    self.state.refusals = min(max(0, self.state.refusals), Self.refusalLimit)
    timeout = clock.makeTimer { [weak self] in self?.characterTimeout() }
    retry = clock.makeTimer { [weak self] in self?.transmit() }
    if let deadline = self.state.timeoutDeadline { timeout?.arm(at: deadline) }
    if let deadline = self.state.transmitDeadline { retry?.arm(at: deadline) }
    updateInterrupt()
    connect(backend)
  }

  /// Gives a port that is connected to nothing its backend.
  package func connect(_ backend: (any CharacterBackend)?) {
    self.backend = backend
    backend?.onReceive = { [weak self] in self?.receive($0) }
    backend?.room = { [weak self] in self?.backlogRoom() ?? 0 }
  }

  package func saveState() -> State {
    var saved = state
    saved.timeoutDeadline = timeout?.deadline
    saved.transmitDeadline = retry?.deadline
    return saved
  }

  /// Master reset (datasheet table I); the divisor and scratch survive it.
  package func reset() {
    timeout?.cancel()
    retry?.cancel()
    var fresh = State()
    fresh.divisor = state.divisor
    fresh.scratch = state.scratch
    fresh.backlog = state.backlog
    state = fresh
    updateInterrupt()
  }

  // MARK: Registers

  package func read(offset: UInt64, width: Int) -> UInt64 {
    UInt64(readRegister(Int(truncatingIfNeeded: offset & 7)))
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    writeRegister(Int(truncatingIfNeeded: offset & 7), UInt8(truncatingIfNeeded: value))
  }

  private func readRegister(_ register: Int) -> UInt8 {
    let latch = state.lineControl & Self.divisorLatch != 0
    switch register {
    case 0 where latch: return UInt8(truncatingIfNeeded: state.divisor)
    case 1 where latch: return UInt8(truncatingIfNeeded: state.divisor >> 8)
    case 0: return readBuffer()
    case 1: return state.interruptEnable
    case 2: return readIdentification()
    case 3: return state.lineControl
    case 4: return state.modemControl
    case 5: return readLineStatus()
    case 6: return readModemStatus()
    default: return state.scratch
    }
  }

  private func writeRegister(_ register: Int, _ value: UInt8) {
    let latch = state.lineControl & Self.divisorLatch != 0
    switch register {
    case 0 where latch: state.divisor = state.divisor & 0xFF00 | UInt16(value)
    case 1 where latch: state.divisor = state.divisor & 0x00FF | UInt16(value) << 8
    case 0: writeHolding(value)
    case 1: writeEnable(value)
    case 2: writeFIFOControl(value)
    case 3: writeLineControl(value)
    case 4: writeModemControl(value)
    case 7: state.scratch = value
    default: break
    }
  }

  private func writeEnable(_ value: UInt8) {
    let newlyEnabled = value & ~state.interruptEnable
    state.interruptEnable = value & 0x0F
    // Enabling the THRE interrupt while the register is empty raises it.
    if newlyEnabled & Enable.transmitterEmpty != 0 && state.transmitFIFO.isEmpty {
      state.transmitterEmptyPending = true
    }
    updateInterrupt()
  }

  private func writeLineControl(_ value: UInt8) {
    let breakBegins = value & ~state.lineControl & Self.setBreak != 0
    state.lineControl = value
    // The line ends at the host, which has no use for a break; looped back it is a
    // zero byte with an error.
    guard breakBegins, state.modemControl & Self.loopback != 0 else { return }
    loop(0)
    state.lineErrors |= LineStatus.breakInterrupt
    updateInterrupt()
  }

  private func readIdentification() -> UInt8 {
    let source = pendingSource
    if source == Identification.transmitterEmpty {
      state.transmitterEmptyPending = false
      updateInterrupt()
    }
    return source | (fifosEnabled ? Identification.fifosEnabled : 0)
  }

  private func readLineStatus() -> UInt8 {
    var status = state.lineErrors
    if !state.receiveFIFO.isEmpty { status |= LineStatus.dataReady }
    if state.transmitFIFO.isEmpty {
      status |= LineStatus.holdingEmpty | LineStatus.transmitterEmpty
    }
    if fifosEnabled && state.lineErrors & ~LineStatus.overrun != 0 {
      status |= LineStatus.fifoError
    }
    state.lineErrors = 0
    updateInterrupt()
    return status
  }

  private func writeFIFOControl(_ value: UInt8) {
    let enabled = value & 1
    // Changing the enable bit clears both FIFOs; the other bits need it set.
    let toggled = (value ^ state.fifoControl) & 1 != 0
    if toggled || (enabled != 0 && value & 2 != 0) {
      state.receiveFIFO = []
      state.timeoutPending = false
      timeout?.cancel()
      state.lineErrors &= LineStatus.overrun
    }
    if toggled || (enabled != 0 && value & 4 != 0) {
      state.transmitFIFO = []
      retry?.cancel()
      state.transmitterEmptyPending = true
    }
    state.fifoControl = enabled != 0 ? value & 0xC9 : 0
    refill()
  }

  // MARK: Modem lines

  /// CTS, DSR, RI, DCD in bits 7:4. The cable has CTS, DSR and DCD connected; in
  /// loopback they follow RTS, DTR, OUT1 and OUT2 (datasheet 8.6).
  private var modemInputs: UInt8 {
    let control = state.modemControl
    guard control & Self.loopback != 0 else { return backend == nil ? 0 : 0xB0 }
    return (control & 0x0C) << 4 | (control & 2) << 3 | (control & 1) << 5
  }

  private func writeModemControl(_ value: UInt8) {
    let before = modemInputs
    state.modemControl = value & 0x1F
    let now = modemInputs
    let changed = before ^ now
    state.modemDelta |= (changed & 0x10) >> 4 | (changed & 0x20) >> 4 | (changed & 0x80) >> 4
    // TERI: the trailing edge of RI only.
    if before & 0x40 != 0 && now & 0x40 == 0 { state.modemDelta |= 4 }
    refill()
  }

  private func readModemStatus() -> UInt8 {
    let status = modemInputs | state.modemDelta
    state.modemDelta = 0
    updateInterrupt()
    return status
  }

  // MARK: Transmitter

  private func writeHolding(_ value: UInt8) {
    state.transmitterEmptyPending = false
    if state.modemControl & Self.loopback != 0 {
      loop(value)
      state.transmitterEmptyPending = true
      updateInterrupt()
      return
    }
    if state.transmitFIFO.count < (fifosEnabled ? Self.fifoDepth : 1) {
      state.transmitFIFO.append(value)
    } else {
      // Writing to a full transmitter overwrites what was last written.
      state.transmitFIFO[state.transmitFIFO.count - 1] = value
    }
    if retry?.deadline == nil { transmit() } else { updateInterrupt() }
  }

  private func transmit() {
    if let backend, !state.transmitFIFO.isEmpty {
      let accepted = backend.write(state.transmitFIFO)
      state.transmitFIFO.removeFirst(min(max(accepted, 0), state.transmitFIFO.count))
      state.refusals = accepted > 0 ? 0 : min(state.refusals + 1, Self.refusalLimit)
    } else {
      state.transmitFIFO = []
    }
    if state.transmitFIFO.isEmpty {
      state.transmitterEmptyPending = true
    } else {
      retry?.arm(at: clock.now &+ retryDelay)
    }
    updateInterrupt()
  }

  /// A character time at first; twice that each time, up to 10 ms, for a line that
  /// nobody reads.
  private var retryDelay: UInt64 {
    let doubled = characterTime << UInt64(max(0, state.refusals - 1))
    return max(characterTime, min(doubled, Self.longestRetry))
  }

  /// Start, data, parity and stop bits at 1.8432 MHz / (16 × divisor), in
  /// nanoseconds.
  private var characterTime: UInt64 {
    let control = state.lineControl
    let bits = 7 + UInt64(control & 3) + UInt64((control >> 2) & 1) + UInt64((control >> 3) & 1)
    let divisor = UInt64(max(state.divisor, 1))
    return bits * divisor * 1_000_000_000 / 115_200
  }

  // MARK: Receiver

  private var fifosEnabled: Bool { state.fifoControl & 1 != 0 }

  private var triggerLevel: Int {
    fifosEnabled ? [1, 4, 8, 14][Int(state.fifoControl >> 6)] : 1
  }

  private func backlogRoom() -> Int {
    let room = max(0, Self.backlogLimit - state.backlog.count)
    if room == 0 { backendWaits = true }
    return room
  }

  /// Bytes from the line.
  private func receive(_ bytes: [UInt8]) {
    let room = max(0, Self.backlogLimit - state.backlog.count)
    state.backlog += bytes.prefix(room)
    if bytes.count > room { state.lineErrors |= LineStatus.overrun }
    refill()
  }

  private func refill() {
    let depth = fifosEnabled ? Self.fifoDepth : 1
    if state.modemControl & Self.loopback == 0 {
      let count = min(max(0, depth - state.receiveFIFO.count), state.backlog.count)
      if count > 0 {
        state.receiveFIFO += state.backlog.prefix(count)
        state.backlog.removeFirst(count)
        restartTimeout()
        // Half of it at once, not a wake-up for each byte.
        if backendWaits && state.backlog.count <= Self.backlogLimit / 2 {
          backendWaits = false
          backend?.hasRoom()
        }
      }
    }
    updateInterrupt()
  }

  /// One byte from the transmitter to the receiver, in loopback.
  private func loop(_ value: UInt8) {
    let depth = fifosEnabled ? Self.fifoDepth : 1
    let masked = value & UInt8(truncatingIfNeeded: (1 << (5 + Int(state.lineControl & 3))) - 1)
    if state.receiveFIFO.count < depth {
      state.receiveFIFO.append(masked)
    } else {
      state.lineErrors |= LineStatus.overrun
      if !fifosEnabled { state.receiveFIFO[0] = masked }
    }
    restartTimeout()
  }

  private func readBuffer() -> UInt8 {
    guard !state.receiveFIFO.isEmpty else { return 0 }
    let value = state.receiveFIFO.removeFirst()
    state.timeoutPending = false
    restartTimeout()
    refill()
    return value
  }

  /// Four character times without traffic make the rest of a FIFO known.
  private func restartTimeout() {
    guard fifosEnabled, !state.receiveFIFO.isEmpty else {
      timeout?.cancel()
      return
    }
    timeout?.arm(at: clock.now &+ 4 &* characterTime)
  }

  private func characterTimeout() {
    state.timeoutPending = fifosEnabled && !state.receiveFIFO.isEmpty
    updateInterrupt()
  }

  // MARK: Interrupt

  /// The highest pending enabled source, in the order of datasheet table III.
  private var pendingSource: UInt8 {
    let enable = state.interruptEnable
    if enable & Enable.lineStatus != 0 && state.lineErrors & LineStatus.errors != 0 {
      return Identification.lineStatus
    }
    if enable & Enable.received != 0 {
      if state.receiveFIFO.count >= triggerLevel { return Identification.received }
      if state.timeoutPending { return Identification.timeout }
    }
    if enable & Enable.transmitterEmpty != 0 && state.transmitterEmptyPending {
      return Identification.transmitterEmpty
    }
    if enable & Enable.modemStatus != 0 && state.modemDelta != 0 {
      return Identification.modemStatus
    }
    return Identification.none
  }

  private func updateInterrupt() {
    interrupt.setLevel(pendingSource != Identification.none)
  }
}
