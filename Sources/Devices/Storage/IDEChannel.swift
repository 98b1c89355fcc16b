import DeviceModel

/// One IDE channel: two drives, their command and control block, one interrupt.
package final class IDEChannel {
  private enum Register {
    static let data = 0
    static let errorOrFeatures = 1
    static let sectorCount = 2
    static let lbaLow = 3
    static let lbaMid = 4
    static let lbaHigh = 5
    static let device = 6
    static let statusOrCommand = 7
  }

  private enum Control {
    static let interruptDisable: UInt8 = 0x02
    static let softReset: UInt8 = 0x04
    static let highOrderByte: UInt8 = 0x80
  }

  private enum Command {
    static let deviceReset: UInt8 = 0x08
    static let executeDiagnostic: UInt8 = 0x90
  }

  package struct State: Codable, Sendable {
    package var version = 1
    package var selected = 0
    package var control: UInt8 = 0
    package var busMaster = BusMaster.State()
    /// Device 0 and device 1; nil where there is none.
    package var drives: [IDEDrive.State?] = [nil, nil]
  }

  /// Eight ports, at 0x1F0 or 0x170.
  package var commandBlock: any BusTarget {
    IDEPorts(maximumAccessWidth: 4, read: readCommandBlock, write: writeCommandBlock)
  }
  /// One port, at 0x3F6 or 0x376.
  package var controlBlock: any BusTarget {
    IDEPorts(
      maximumAccessWidth: 1,
      read: { _, _ in UInt64(self.selectedDrive?.taskFile.status.rawValue ?? 0) },
      write: { _, _, value in self.writeControl(UInt8(truncatingIfNeeded: value)) })
  }

  let busMaster: BusMaster
  let drives: [IDEDrive?]
  private let interrupt: any InterruptLine
  private var selected = 0
  private var control: UInt8 = 0

  init(
    drives: [IDEDrive?], busMaster: BusMaster, interrupt: any InterruptLine, state: State?
  ) {
    self.drives = drives
    self.busMaster = busMaster
    self.interrupt = interrupt
    if let state {
      selected = state.selected & 1
      control = state.control
    }
    busMaster.channel = self
    for drive in drives { drive?.channel = self }
    updateInterrupt()
    for drive in drives { drive?.resume() }
  }

  func saveState() -> State {
    State(
      selected: selected, control: control, busMaster: busMaster.saveState(),
      drives: drives.map { $0?.saveState() })
  }

  func reset() {
    selected = 0
    control = 0
    busMaster.reset()
    for drive in drives { drive?.hardReset() }
    updateInterrupt()
  }

  // MARK: - Drives report

  /// A drive's interrupt changed.
  func interruptChanged(of drive: IDEDrive) {
    if drive.interruptPending {
      busMaster.noteInterrupt(failed: drive.taskFile.status.contains(.error))
    }
    updateInterrupt()
  }

  /// A drive is ready to move data by DMA, or the bus master was started.
  func runDMA() {
    for case let drive? in drives where drive.isReadyForDMA { busMaster.run(drive) }
  }

  private func updateInterrupt() {
    let enabled = control & Control.interruptDisable == 0
    interrupt.setLevel(enabled && selectedDrive?.interruptPending == true)
  }

  // MARK: - Command block

  private var selectedDrive: IDEDrive? { drives[selected] }

  private func readCommandBlock(_ offset: Int, _ width: Int) -> UInt64 {
    if offset == Register.data && width > 1 {
      return UInt64(selectedDrive?.readData(width: width) ?? 0)
    }
    return (0..<width).reduce(0) {
      $0 | UInt64(readRegister((offset + $1) & 7)) << UInt64($1 * 8)
    }
  }

  /// An absent drive reads as zeros.
  private func readRegister(_ register: Int) -> UInt8 {
    guard let drive = selectedDrive else { return 0 }
    let highOrder = control & Control.highOrderByte != 0
    func value(_ pair: TaskFile.Pair) -> UInt8 { highOrder ? pair.previous : pair.current }
    switch register {
    case Register.errorOrFeatures: return drive.taskFile.error
    case Register.sectorCount: return value(drive.taskFile.sectorCount)
    case Register.lbaLow: return value(drive.taskFile.lbaLow)
    case Register.lbaMid: return value(drive.taskFile.lbaMid)
    case Register.lbaHigh: return value(drive.taskFile.lbaHigh)
    case Register.device: return drive.taskFile.device | 0xA0
    case Register.statusOrCommand:
      drive.setInterrupt(false)
      return drive.taskFile.status.rawValue
    default: return 0xFF
    }
  }

  private func writeCommandBlock(_ offset: Int, _ width: Int, _ value: UInt64) {
    if offset == Register.data && width > 1 {
      selectedDrive?.writeData(UInt32(truncatingIfNeeded: value), width: width)
      return
    }
    for index in 0..<width {
      writeRegister((offset + index) & 7, UInt8(truncatingIfNeeded: value >> UInt64(index * 8)))
    }
  }

  /// Both drives listen to all but the command register.
  private func writeRegister(_ register: Int, _ value: UInt8) {
    control &= ~Control.highOrderByte
    if register == Register.statusOrCommand { return writeCommand(value) }
    for case let drive? in drives {
      switch register {
      case Register.errorOrFeatures: drive.taskFile.features.write(value)
      case Register.sectorCount: drive.taskFile.sectorCount.write(value)
      case Register.lbaLow: drive.taskFile.lbaLow.write(value)
      case Register.lbaMid: drive.taskFile.lbaMid.write(value)
      case Register.lbaHigh: drive.taskFile.lbaHigh.write(value)
      case Register.device: drive.taskFile.device = value
      default: break
      }
    }
    if register == Register.device {
      selected = value & TaskFile.driveBit == 0 ? 0 : 1
      updateInterrupt()
    }
  }

  private func writeCommand(_ command: UInt8) {
    if command == Command.executeDiagnostic { return diagnose() }
    guard let drive = selectedDrive else { return }
    let status = drive.taskFile.status
    if command == Command.deviceReset && drive.isPacketDevice {
      let device = drive.taskFile.device
      drive.softReset()
      drive.taskFile.device = device
      return
    }
    guard status.isDisjoint(with: [.busy, .dataRequest]) else { return }
    drive.setInterrupt(false)
    drive.execute(command)
  }

  private func diagnose() {
    let busy = drives.contains {
      $0?.taskFile.status.isDisjoint(with: [.busy, .dataRequest]) == false
    }
    guard !busy else { return }
    softReset()
    drives[0]?.setInterrupt(true)
  }

  private func softReset() {
    for case let drive? in drives {
      drive.softReset()
      drive.taskFile.device = 0
    }
    selected = 0
    updateInterrupt()
  }

  private func writeControl(_ value: UInt8) {
    let released = control & ~value & Control.softReset != 0
    let asserted = value & ~control & Control.softReset != 0
    control = value & (Control.interruptDisable | Control.softReset | Control.highOrderByte)
    if asserted {
      for case let drive? in drives {
        drive.cancel()
        drive.taskFile.status = [.busy]
        drive.setInterrupt(false)
      }
    }
    if released { softReset() }
    updateInterrupt()
  }
}

/// A run of ports whose accesses go to closures.
final class IDEPorts: BusTarget {
  let maximumAccessWidth: Int
  private let readPorts: (Int, Int) -> UInt64
  private let writePorts: (Int, Int, UInt64) -> Void

  init(
    maximumAccessWidth: Int, read: @escaping (Int, Int) -> UInt64,
    write: @escaping (Int, Int, UInt64) -> Void
  ) {
    self.maximumAccessWidth = maximumAccessWidth
    readPorts = read
    writePorts = write
  }

  func read(offset: UInt64, width: Int) -> UInt64 {
    readPorts(Int(truncatingIfNeeded: offset & 0xFF), width)
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    writePorts(Int(truncatingIfNeeded: offset & 0xFF), width, value)
  }
}
