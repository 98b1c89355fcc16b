import DeviceModel

/// The 8042 keyboard controller with a keyboard on its first port and a mouse on
/// its auxiliary port. Map `dataPort` at 0x60 and `commandPort` at 0x64.
///
/// Follows IBM's PS/2 Hardware Interface Technical Reference, "Keyboard and
/// Auxiliary Device Controller". Both devices always answer, so the time-out and
/// parity bits of the status register stay clear.
package final class I8042: StatefulDevice {
  private enum Command {
    static let readRAM: ClosedRange<UInt8> = 0x20...0x3F
    static let writeRAM: ClosedRange<UInt8> = 0x60...0x7F
    static let passwordInstalled: UInt8 = 0xA4
    static let loadPassword: UInt8 = 0xA5
    static let enablePassword: UInt8 = 0xA6
    static let disableAuxiliary: UInt8 = 0xA7
    static let enableAuxiliary: UInt8 = 0xA8
    static let testAuxiliary: UInt8 = 0xA9
    static let selfTest: UInt8 = 0xAA
    static let testKeyboard: UInt8 = 0xAB
    static let disableKeyboard: UInt8 = 0xAD
    static let enableKeyboard: UInt8 = 0xAE
    static let readInputPort: UInt8 = 0xC0
    static let pollInputPortLow: UInt8 = 0xC1
    static let pollInputPortHigh: UInt8 = 0xC2
    static let readOutputPort: UInt8 = 0xD0
    static let writeOutputPort: UInt8 = 0xD1
    static let writeKeyboardBuffer: UInt8 = 0xD2
    static let writeAuxiliaryBuffer: UInt8 = 0xD3
    static let writeAuxiliary: UInt8 = 0xD4
    static let disableA20: UInt8 = 0xDD
    static let enableA20: UInt8 = 0xDF
    static let readTestInputs: UInt8 = 0xE0
    static let pulseOutput: ClosedRange<UInt8> = 0xF0...0xFF
  }

  private struct Status: OptionSet {
    let rawValue: UInt8
    static let outputBufferFull = Status(rawValue: 0x01)
    static let systemFlag = Status(rawValue: 0x04)
    static let command = Status(rawValue: 0x08)
    static let notInhibited = Status(rawValue: 0x10)
    static let auxiliary = Status(rawValue: 0x20)
  }

  /// RAM byte 0.
  private struct Configuration: OptionSet {
    let rawValue: UInt8
    static let keyboardInterrupt = Configuration(rawValue: 0x01)
    static let auxiliaryInterrupt = Configuration(rawValue: 0x02)
    static let systemFlag = Configuration(rawValue: 0x04)
    static let keyboardDisabled = Configuration(rawValue: 0x10)
    static let auxiliaryDisabled = Configuration(rawValue: 0x20)
    static let translate = Configuration(rawValue: 0x40)
  }

  private enum OutputPort {
    static let notReset: UInt8 = 0x01
    static let a20: UInt8 = 0x02
    /// Output buffer full from the keyboard, from the auxiliary device.
    static let keyboardFull: UInt8 = 0x10
    static let auxiliaryFull: UInt8 = 0x20
    static let clockAndData: UInt8 = 0xCC
  }

  package struct Output: Codable, Sendable, Equatable {
    var byte: UInt8
    var isAuxiliary: Bool
  }

  package struct State: Codable, Sendable {
    var version = 1
    var ram: [UInt8] = [0x03] + Array(repeating: 0, count: 31)
    var outputPort: UInt8 = 0x03
    var lastWriteWasCommand = true
    /// Status bits 7:4 while the input port is polled.
    var polled: UInt8?
    /// The command whose parameter comes to the data port next.
    var awaiting: UInt8?
    /// The output buffer while it is full, and the byte read last.
    var output: Output?
    var lastByte: UInt8 = 0
    /// The controller's own answers, which go before those of the devices.
    var answers: [Output] = []
    /// The keyboard's break prefix was seen while translating.
    var breakSeen = false
    var keyboard = PS2Keyboard.State()
    var mouse = PS2Mouse.State()
  }

  /// Port 0x60.
  package var dataPort: any BusTarget { I8042Port(read: readData, write: writeData) }
  /// Port 0x64.
  package var commandPort: any BusTarget {
    I8042Port(read: { self.status }, write: writeCommand)
  }

  /// Called, device lock held, when the guest sets the keyboard's lights.
  package var onLEDs: (KeyboardLEDs) -> Void = { _ in }

  private weak var machine: (any MachineControl)?
  private var state: State
  private let keyboard: PS2Keyboard
  private let mouse: PS2Mouse
  private let keyboardInterrupt: any InterruptLine
  private let auxiliaryInterrupt: any InterruptLine

  /// - Parameters:
  ///   - keyboardInterrupt: IRQ 1.
  ///   - auxiliaryInterrupt: IRQ 12.
  package init(
    machine: any MachineControl, clock: any DeviceClock, keyboardInterrupt: any InterruptLine,
    auxiliaryInterrupt: any InterruptLine, state: State?
  ) {
    self.machine = machine
    self.keyboardInterrupt = keyboardInterrupt
    self.auxiliaryInterrupt = auxiliaryInterrupt
    self.state = state ?? State()
    keyboard = PS2Keyboard(clock: clock, state: state?.keyboard)
    mouse = PS2Mouse(clock: clock, state: state?.mouse)
    keyboard.onData = { [unowned self] in pump() }
    keyboard.onLEDs = { [unowned self] in onLEDs($0) }
    mouse.onData = { [unowned self] in pump() }
    updateInterrupts()
  }

  package func saveState() -> State {
    var saved = state
    saved.keyboard = keyboard.saveState()
    saved.mouse = mouse.saveState()
    return saved
  }

  package func reset() {
    state = State()
    keyboard.reset()
    mouse.reset()
    updateInterrupts()
  }

  /// The lights as the guest set them last.
  package var leds: KeyboardLEDs { keyboard.leds }

  /// The picture's size in pixels, for pointers that only understand movement.
  package func setScanoutSize(width: Int, height: Int) {
    mouse.setScanoutSize(width: width, height: height)
  }

  /// Makes the mouse interrupt without moving; see `VMwareBackdoor`.
  package func nudgeMouse() { mouse.nudge() }

  /// As firmware leaves it to a system: tested, with the keyboard enabled, its interrupt,
  /// and its codes translated to set 1.
  package func setUp() {
    configuration.formUnion([.systemFlag, .keyboardInterrupt, .translate])
    configuration.remove(.keyboardDisabled)
  }

  // MARK: - Registers

  private var configuration: Configuration {
    get { Configuration(rawValue: state.ram[0]) }
    set { state.ram[0] = newValue.rawValue }
  }

  /// Bit 7: the keyboard's lock is open.
  private static let inputPort: UInt8 = 0x80

  private var status: UInt8 {
    let status = ownStatus.rawValue
    return state.polled.map { $0 | status & 0x0F } ?? status
  }

  private var ownStatus: Status {
    var status: Status = [.notInhibited]
    if let output = state.output {
      status.insert(.outputBufferFull)
      if output.isAuxiliary { status.insert(.auxiliary) }
    }
    if configuration.contains(.systemFlag) { status.insert(.systemFlag) }
    if state.lastWriteWasCommand { status.insert(.command) }
    return status
  }

  private func readData() -> UInt8 {
    guard let output = state.output else { return state.lastByte }
    state.output = nil
    state.lastByte = output.byte
    // The line drops before the next byte raises it: an edge for each byte.
    updateInterrupts()
    pump()
    return output.byte
  }

  private func writeData(_ byte: UInt8) {
    state.lastWriteWasCommand = false
    state.polled = nil
    guard let command = state.awaiting else {
      // A byte for the keyboard also enables its interface.
      configuration.remove(.keyboardDisabled)
      return keyboard.receive(byte)
    }
    // A password ends with a zero byte.
    if command == Command.loadPassword && byte != 0 { return }
    state.awaiting = nil
    switch command {
    case Command.loadPassword: break
    case Command.writeRAM:
      state.ram[Int(command & 0x1F)] = byte
      updateInterrupts()
      pump()
    case Command.writeOutputPort: writeOutputPort(byte)
    case Command.writeKeyboardBuffer: answer(byte)
    case Command.writeAuxiliaryBuffer: answer(byte, isAuxiliary: true)
    default:
      configuration.remove(.auxiliaryDisabled)
      mouse.receive(byte)
    }
  }

  private func writeCommand(_ command: UInt8) {
    state.lastWriteWasCommand = true
    state.polled = nil
    state.awaiting = nil
    switch command {
    case Command.readRAM: answer(state.ram[Int(command & 0x1F)])
    case Command.writeRAM, Command.writeOutputPort, Command.writeKeyboardBuffer,
      Command.writeAuxiliaryBuffer, Command.writeAuxiliary, Command.loadPassword:
      state.awaiting = command
    // A controller without the security option: a password is taken, none is ever
    // installed, and without one there is nothing to enable.
    case Command.passwordInstalled: answer(0xF1)
    case Command.enablePassword: break
    case Command.disableAuxiliary: configuration.insert(.auxiliaryDisabled)
    case Command.enableAuxiliary:
      configuration.remove(.auxiliaryDisabled)
      pump()
    case Command.testAuxiliary, Command.testKeyboard: answer(0x00)
    case Command.selfTest:
      configuration.insert(.systemFlag)
      answer(0x55)
    case Command.disableKeyboard: configuration.insert(.keyboardDisabled)
    case Command.enableKeyboard:
      configuration.remove(.keyboardDisabled)
      pump()
    case Command.readInputPort: answer(Self.inputPort)
    case Command.pollInputPortLow: state.polled = Self.inputPort << 4
    case Command.pollInputPortHigh: state.polled = Self.inputPort & 0xF0
    case Command.readOutputPort: answer(outputPort)
    case Command.disableA20: writeOutputPort(state.outputPort & ~OutputPort.a20)
    case Command.enableA20: writeOutputPort(state.outputPort | OutputPort.a20)
    case Command.readTestInputs: answer(testInputs)
    case Command.pulseOutput where command & OutputPort.notReset == 0:
      machine?.requestReset(.keyboardController)
    default: break
    }
  }

  /// The clock lines, which the controller pulls low to hold a device.
  private var testInputs: UInt8 {
    (configuration.contains(.keyboardDisabled) ? 0 : 1)
      | (configuration.contains(.auxiliaryDisabled) ? 0 : 2)
  }

  private var outputPort: UInt8 {
    var port = state.outputPort | OutputPort.clockAndData
    if let output = state.output {
      port |= output.isAuxiliary ? OutputPort.auxiliaryFull : OutputPort.keyboardFull
    }
    return port
  }

  private func writeOutputPort(_ value: UInt8) {
    // The A20 gate is remembered but always open, as on every PC since.
    state.outputPort = value & (OutputPort.a20 | OutputPort.notReset) | OutputPort.notReset
    if value & OutputPort.notReset == 0 { machine?.requestReset(.keyboardController) }
  }

  // MARK: - Output buffer

  private func answer(_ byte: UInt8, isAuxiliary: Bool = false) {
    // A guest that never reads loses answers, not our memory.
    if state.answers.count < 16 {
      state.answers.append(Output(byte: byte, isAuxiliary: isAuxiliary))
    }
    pump()
  }

  /// Fills the output buffer, when it is empty, from whoever has a byte.
  private func pump() {
    guard state.output == nil else { return }
    if !state.answers.isEmpty {
      state.output = state.answers.removeFirst()
    } else if !configuration.contains(.keyboardDisabled), let byte = keyboardByte() {
      state.output = Output(byte: byte, isAuxiliary: false)
    } else if !configuration.contains(.auxiliaryDisabled), let byte = mouse.nextByte() {
      state.output = Output(byte: byte, isAuxiliary: true)
    }
    updateInterrupts()
  }

  /// The keyboard's next byte, which in translation is the first after a break
  /// prefix with the top bit set.
  private func keyboardByte() -> UInt8? {
    while let byte = keyboard.nextByte() {
      guard configuration.contains(.translate) else { return byte }
      if byte == 0xF0 {
        state.breakSeen = true
        continue
      }
      defer { state.breakSeen = false }
      return ScanCodes.translated(byte) | (state.breakSeen ? 0x80 : 0)
    }
    return nil
  }

  private func updateInterrupts() {
    let full = state.output
    keyboardInterrupt.setLevel(
      full?.isAuxiliary == false && configuration.contains(.keyboardInterrupt))
    auxiliaryInterrupt.setLevel(
      full?.isAuxiliary == true && configuration.contains(.auxiliaryInterrupt))
  }
}

extension I8042: InputSink {
  package func accepts(_ event: InputEvent) -> Bool {
    switch event {
    // Releases always, so that no key stays down for good.
    case .key(_, let pressed): keyboard.isScanning || !pressed
    case .absolutePointer, .relativePointer: mouse.isListening
    }
  }

  package func deliver(_ event: InputEvent) {
    switch event {
    case .key(let key, let pressed): keyboard.deliver(key, pressed: pressed)
    case .absolutePointer(let x, let y, let buttons): mouse.moveTo(x: x, y: y, buttons: buttons)
    case .relativePointer(let x, let y, let wheel, _, let buttons):
      mouse.move(x: x, y: y, wheel: wheel, buttons: buttons)
    }
  }
}

private final class I8042Port: BusTarget {
  private let readByte: () -> UInt8
  private let writeByte: (UInt8) -> Void

  init(read: @escaping () -> UInt8, write: @escaping (UInt8) -> Void) {
    readByte = read
    writeByte = write
  }

  func read(offset: UInt64, width: Int) -> UInt64 { UInt64(readByte()) }

  func write(offset: UInt64, width: Int, value: UInt64) {
    writeByte(UInt8(truncatingIfNeeded: value))
  }
}
