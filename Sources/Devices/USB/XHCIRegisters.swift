/// The registers in memory (section 5.3 and on), as dwords: software uses no others.
extension XHCI {
  enum Layout {
    static let size: UInt64 = 0x4000
    static let extendedCapabilities: UInt64 = 0x20
    static let operational: UInt64 = 0x40
    static let ports: UInt64 = 0x440
    static let runtime: UInt64 = 0x1000
    static let doorbells: UInt64 = 0x2000
    static let messageTable: UInt64 = 0x3000
    static let pendingBits: UInt64 = 0x3800
    static let portSize: UInt64 = 16
  }

  /// USBCMD (section 5.4.1).
  enum Command {
    static let runStop: UInt32 = 1 << 0
    static let reset: UInt32 = 1 << 1
    static let interruptEnable: UInt32 = 1 << 2
    static let saveState: UInt32 = 1 << 8
    static let restoreState: UInt32 = 1 << 9
    /// EWE.
    static let enableWrapEvent: UInt32 = 1 << 10
    /// What reads back: R/S, INTE, HSEE, EWE, EU3S.
    static let stored: UInt32 = 0x0C0D
  }

  /// USBSTS (section 5.4.2).
  enum Status {
    static let halted: UInt32 = 1 << 0
    static let hostSystemError: UInt32 = 1 << 2
    static let eventInterrupt: UInt32 = 1 << 3
    static let portChange: UInt32 = 1 << 4
    static let saveRestoreError: UInt32 = 1 << 10
    static let clearable = hostSystemError | eventInterrupt | portChange | saveRestoreError
  }

  /// CRCR (section 5.4.5).
  private enum CommandRingControl {
    static let cycle: UInt32 = 1 << 0
    static let stop: UInt32 = 1 << 1
    static let abort: UInt32 = 1 << 2
    static let running: UInt32 = 1 << 3
  }

  private enum Operational {
    static let command: UInt64 = 0x00
    static let status: UInt64 = 0x04
    static let pageSize: UInt64 = 0x08
    static let notificationControl: UInt64 = 0x14
    static let commandRing: UInt64 = 0x18
    static let contextArray: UInt64 = 0x30
    static let configure: UInt64 = 0x38
  }

  private enum Runtime {
    static let microframeIndex: UInt64 = 0x00
    static let management: UInt64 = 0x20
    static let moderation: UInt64 = 0x24
    static let tableSize: UInt64 = 0x28
    static let tableAddress: UInt64 = 0x30
    static let dequeue: UInt64 = 0x38
  }

  private static let microframe: UInt64 = 125_000
  /// MFINDEX has 14 bits.
  private static let microframeWrap: UInt64 = 0x4000 * microframe

  package func read(offset: UInt64, width: Int) -> UInt64 {
    let aligned = offset & ~3
    let value: UInt32
    switch aligned {
    case Layout.messageTable..<Layout.pendingBits:
      return msix.table.read(offset: offset - Layout.messageTable, width: width)
    case Layout.pendingBits..<Layout.size:
      return msix.pendingBits.read(offset: offset - Layout.pendingBits, width: width)
    case ..<Layout.operational: value = readCapability(aligned)
    case Layout.ports..<Layout.runtime: value = readPort(aligned - Layout.ports)
    case ..<Layout.runtime: value = readOperational(aligned - Layout.operational)
    case ..<Layout.doorbells: value = readRuntime(aligned - Layout.runtime)
    default: value = 0  // doorbells
    }
    return UInt64(value) >> ((offset & 3) * 8)
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    guard width == 4, offset & 3 == 0 else { return }
    let word = UInt32(truncatingIfNeeded: value)
    switch offset {
    case Layout.messageTable..<Layout.pendingBits:
      msix.table.write(offset: offset - Layout.messageTable, width: width, value: value)
    case ..<Layout.operational, Layout.pendingBits...: break
    case Layout.ports..<Layout.runtime: writePort(offset - Layout.ports, word)
    case ..<Layout.runtime: writeOperational(offset - Layout.operational, word)
    case ..<Layout.doorbells: writeRuntime(offset - Layout.runtime, word)
    default: ring(doorbell: Int((offset - Layout.doorbells) / 4), word)
    }
  }

  // MARK: Capability registers (section 5.3)

  private func readCapability(_ offset: UInt64) -> UInt32 {
    switch offset {
    // CAPLENGTH and HCIVERSION.
    case 0x00: UInt32(Layout.operational) | 0x0100 << 16
    // HCSPARAMS1: slots, interrupters, ports.
    case 0x04: UInt32(Self.maximumSlots) | 1 << 8 | UInt32(Self.portCount) << 24
    // HCSPARAMS2: a frame's isochronous threshold, 8 segments of event rings, no scratchpad.
    case 0x08: 0x3F
    // HCCPARAMS1: 64-bit addresses, port power control, extended capabilities.
    case 0x10: 1 | 1 << 3 | UInt32(Layout.extendedCapabilities / 4) << 16
    case 0x14: UInt32(Layout.doorbells)
    case 0x18: UInt32(Layout.runtime)
    case Layout.extendedCapabilities...: readProtocol(offset - Layout.extendedCapabilities)
    default: 0
    }
  }

  /// The two Supported Protocol capabilities (section 7.2).
  private func readProtocol(_ offset: UInt64) -> UInt32 {
    let isUSB3 = offset >= 16
    switch offset & 15 {
    case 0: return isUSB3 ? 0x0300_0002 : 0x0200_0402
    case 4: return 0x2042_5355  // "USB "
    case 8:
      let (first, count) = isUSB3 ? (Self.usb2Ports + 1, Self.usb3Ports) : (1, Self.usb2Ports)
      return UInt32(first | count << 8)
    default: return 0
    }
  }

  // MARK: Operational registers (section 5.4)

  private func readOperational(_ offset: UInt64) -> UInt32 {
    switch offset {
    case Operational.command: state.command
    case Operational.status: state.status
    case Operational.pageSize: 1
    case Operational.notificationControl: state.notificationControl
    // The pointer reads as 0.
    case Operational.commandRing: state.isCommandRingRunning ? CommandRingControl.running : 0
    case Operational.contextArray: UInt32(truncatingIfNeeded: state.contextArray)
    case Operational.contextArray + 4: UInt32(truncatingIfNeeded: state.contextArray >> 32)
    case Operational.configure: state.configure
    default: 0
    }
  }

  private func writeOperational(_ offset: UInt64, _ value: UInt32) {
    switch offset {
    case Operational.command: writeCommand(value)
    case Operational.status: state.status &= ~(value & Status.clearable)
    case Operational.notificationControl: state.notificationControl = value & 0xFFFF
    case Operational.commandRing: writeCommandRing(value)
    case Operational.commandRing + 4:
      guard !state.isCommandRingRunning else { return }
      Self.set(&state.commandRing.pointer, value, high: true)
    case Operational.contextArray: Self.set(&state.contextArray, value & ~63, high: false)
    case Operational.contextArray + 4: Self.set(&state.contextArray, value, high: true)
    case Operational.configure: state.configure = value & 0xFF
    default: break
    }
  }

  private static func set(_ address: inout UInt64, _ value: UInt32, high: Bool) {
    address =
      high
      ? address & 0xFFFF_FFFF | UInt64(value) << 32 : address & ~0xFFFF_FFFF | UInt64(value)
  }

  private func writeCommand(_ value: UInt32) {
    guard value & Command.reset == 0 else { return resetController() }
    let wasRunning = isRunning
    state.command = value & Command.stored
    if state.failure != nil { state.command &= ~Command.runStop }
    if value & Command.saveState != 0 && !isRunning { state.isStateSaved = true }
    if value & Command.restoreState != 0 && !isRunning && !state.isStateSaved {
      // A controller that lost power has nothing to restore; the driver begins anew.
      state.status |= Status.saveRestoreError
    }
    if isRunning && !wasRunning {
      state.status &= ~Status.halted
      reportPorts()
      serve()
    } else if !isRunning && wasRunning {
      state.status |= Status.halted
      state.isCommandRingRunning = false
      state.hasCommands = false
    }
    armWrapTimer()
    updateInterrupt()
  }

  /// For the next time that MFINDEX becomes 0, if the driver wants to know (section 4.14.2).
  func armWrapTimer() {
    guard isRunning, state.command & Command.enableWrapEvent != 0 else {
      return wrapTimer.cancel()
    }
    let turns = (clock.now &- state.epoch) / Self.microframeWrap
    wrapTimer.arm(at: state.epoch &+ (turns &+ 1) &* Self.microframeWrap)
  }

  func microframesWrapped() {
    tell(XHCIEvent(TRB.Kind.microframeWrap, .success))
    armWrapTimer()
  }

  private func writeCommandRing(_ value: UInt32) {
    guard state.isCommandRingRunning else {
      Self.set(&state.commandRing.pointer, value & ~63, high: false)
      state.commandRing.cycle = value & CommandRingControl.cycle != 0
      return
    }
    guard value & (CommandRingControl.stop | CommandRingControl.abort) != 0 else { return }
    // Commands are not interrupted in their midst: it stops between two.
    state.isCommandRingRunning = false
    state.hasCommands = false
    tell(
      XHCIEvent(
        TRB.Kind.commandCompletion, parameter: state.commandRing.pointer, .commandRingStopped))
  }

  /// An event that does not come of work on rings, and so is not held up while the event
  /// ring is full. One that waits already tells as much.
  func tell(_ event: XHCIEvent) {
    let waiting = state.interrupter.waiting
    guard waiting.count < XHCIInterrupter.mostWaiting, !waiting.contains(event) else { return }
    do throws(HostSystemError) {
      try post(event)
    } catch {
      fail(error.problem)
    }
  }

  // MARK: Runtime registers (section 5.5)

  private func readRuntime(_ offset: UInt64) -> UInt32 {
    let interrupter = state.interrupter
    switch offset {
    case Runtime.microframeIndex:
      guard isRunning else { return 0 }
      return UInt32(truncatingIfNeeded: (clock.now &- state.epoch) / Self.microframe) & 0x3FFF
    case Runtime.management: return interrupter.management
    case Runtime.moderation: return interrupter.moderation
    case Runtime.tableSize: return interrupter.tableSize
    case Runtime.tableAddress: return UInt32(truncatingIfNeeded: interrupter.tableAddress)
    case Runtime.tableAddress + 4:
      return UInt32(truncatingIfNeeded: interrupter.tableAddress >> 32)
    case Runtime.dequeue: return UInt32(truncatingIfNeeded: interrupter.dequeue)
    case Runtime.dequeue + 4: return UInt32(truncatingIfNeeded: interrupter.dequeue >> 32)
    default: return 0
    }
  }

  private func writeRuntime(_ offset: UInt64, _ value: UInt32) {
    switch offset {
    case Runtime.management:
      state.interrupter.management &= ~(value & XHCIInterrupter.pending)
      state.interrupter.management &= ~XHCIInterrupter.enable
      state.interrupter.management |= value & XHCIInterrupter.enable
      updateInterrupt()
    case Runtime.moderation: state.interrupter.moderation = value
    case Runtime.tableSize: state.interrupter.tableSize = value & 0xFFFF
    case Runtime.tableAddress:
      Self.set(&state.interrupter.tableAddress, value & ~63, high: false)
      state.interrupter.restart()
    case Runtime.tableAddress + 4:
      Self.set(&state.interrupter.tableAddress, value, high: true)
      state.interrupter.restart()
    case Runtime.dequeue:
      let busy = UInt32(truncatingIfNeeded: state.interrupter.dequeue & XHCIInterrupter.handlerBusy)
      Self.set(&state.interrupter.dequeue, value & ~8 | busy, high: false)
      eventsWereTaken(clearsBusy: value & 8 != 0)
    case Runtime.dequeue + 4:
      Self.set(&state.interrupter.dequeue, value, high: true)
      eventsWereTaken(clearsBusy: false)
    default: break
    }
  }

  // MARK: Doorbells (section 5.6)

  private func ring(doorbell index: Int, _ value: UInt32) {
    guard isRunning, index <= Self.maximumSlots else { return }
    let target = Int(value & 0xFF)
    if index == 0 {
      guard target == 0 else { return }
      state.isCommandRingRunning = true
      state.hasCommands = true
    } else {
      guard (1...31).contains(target) else { return }
      do throws(HostSystemError) {
        try schedule(XHCIPlace(slot: index, endpoint: target))
      } catch {
        fail(error.problem)
      }
    }
    serve()
  }
}
