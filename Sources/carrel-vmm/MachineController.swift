import DeviceModel
import Disk
import LinuxSystem
import Machine
import QMP

/// The machine in the terms of the control socket.
final class MachineController: QMPMachine, Sendable {
  private let machine: Machine
  private let display: DisplayOutput?
  let saving: MachineSaving
  let jobs: DiskJobs

  init(_ machine: Machine, display: DisplayOutput?) {
    self.machine = machine
    self.display = display
    saving = MachineSaving(machine)
    jobs = DiskJobs(machine)
  }

  var name: String { machine.configuration.name }
  var version: (Int, Int, Int) { (0, 1, 0) }

  var runState: QMPRunState {
    switch machine.status {
    case .prelaunch: .prelaunch
    case .running: .running
    case .paused: machine.stuckReason == nil ? .paused : .internalError
    case .ended:
      switch machine.endReason {
      case .tripleFault: .guestPanicked
      case .internalError: .internalError
      default: .shutdown
      }
    }
  }

  /// The events that tell of `event`, with the reasons of QEMU's `ShutdownCause`.
  static func events(_ event: MachineEvent) -> [QMPEvent] {
    switch event {
    case .resumed: [.resume]
    case .paused: [.stop]
    case .stuck(let reason): [.guestPanicked(detail: reason, action: "pause"), .stop]
    case .reset(let origin): [reset(origin)]
    case .powerButtonPressed: [.powerDown]
    case .sleepButtonPressed, .sleepRefused: []
    case .balloonChanged(let memory): [.balloonChanged(actual: memory)]
    case .trayMoved(let drive, let isOpen): [.trayMoved(drive: drive, isOpen: isOpen)]
    case .ended(let reason): end(reason)
    }
  }

  private static func reset(_ origin: ResetOrigin) -> QMPEvent {
    switch origin {
    case .guest: .reset(byGuest: true, reason: "guest-reset")
    case .control: .reset(byGuest: false, reason: "host-qmp-system-reset")
    case .user: .reset(byGuest: false, reason: "host-ui")
    }
  }

  private static func end(_ reason: EndReason) -> [QMPEvent] {
    switch reason {
    case .guestShutdown: [.shutdown(byGuest: true, reason: "guest-shutdown")]
    case .guestReset: [.shutdown(byGuest: true, reason: "guest-reset")]
    case .quit, .suspended: [.shutdown(byGuest: false, reason: "host-qmp-quit")]
    case .signal: [.shutdown(byGuest: false, reason: "host-signal")]
    case .tripleFault, .internalError:
      [
        .guestPanicked(detail: "\(reason)", action: "poweroff"),
        .shutdown(byGuest: true, reason: "guest-panic"),
      ]
    }
  }

  func stop() throws(QMPError) { try perform { () throws(MachineError) in try machine.pause() } }
  func resume() throws(QMPError) { try perform { () throws(MachineError) in try machine.resume() } }
  func reset() throws(QMPError) {
    try perform { () throws(MachineError) in try machine.reset(by: .control) }
  }

  func pressPowerButton() throws(QMPError) {
    try perform { () throws(MachineError) in try machine.pressPowerButton() }
  }

  func pressSleepButton() throws(QMPError) {
    try perform { () throws(MachineError) in try machine.pressSleepButton() }
  }

  func quit() { machine.quit() }

  /// - Parameter unable: the class of the error that says that the machine's state forbids it.
  private func perform<Result>(
    unable: QMPError.Kind = .generic, _ action: () throws(MachineError) -> Result
  ) throws(QMPError) -> Result {
    do {
      return try action()
    } catch {
      throw QMPError(error.kind == .state ? unable : .generic, error.description)
    }
  }

  var processors: [QMPProcessor] {
    machine.processorDescriptions.map {
      QMPProcessor(index: $0.index, threadIdentifier: $0.threadIdentifier)
    }
  }

  var drives: [QMPDrive] {
    machine.driveDescriptions.map { drive in
      QMPDrive(
        name: drive.name, isRemovable: drive.isRemovable, isLocked: drive.isLocked,
        isTrayOpen: drive.isTrayOpen,
        medium: drive.medium.map {
          QMPDrive.Medium(
            path: $0.path, size: $0.size, isReadOnly: $0.isReadOnly,
            layers: $0.layers.map { .init(path: $0.path, format: $0.format.rawValue) },
            limits: QMPLimits($0.limits))
        })
    }
  }

  func injectNMI() throws(QMPError) {
    try perform { () throws(MachineError) in try machine.injectNMI() }
  }

  func setLink(_ card: String, isUp: Bool) throws(QMPError) {
    guard machine.setLink(card, isUp: isUp) else {
      throw QMPError(.generic, "Device '\(card)' not found")
    }
  }

  func limit(_ drive: String, to limits: QMPLimits) throws(QMPError) {
    try perform { () throws(MachineError) in
      try machine.limitDisk(drive, to: DiskLimits(limits))
    }
  }

  func setBalloon(_ bytes: UInt64) throws(QMPError) {
    try perform(unable: .deviceNotActive) { () throws(MachineError) in
      try machine.setBalloon(memory: bytes)
    }
  }

  func readBalloon() throws(QMPError) -> QMPBalloon {
    let balloon = try perform(unable: .deviceNotActive) { () throws(MachineError) in
      try machine.readBalloon()
    }
    return QMPBalloon(
      actual: balloon.memory, statistics: balloon.statistics, lastUpdate: balloon.time)
  }

  func save(_ request: QMPSaveRequest) throws(QMPError) { try saving.start(request) }

  func continueSave() throws(QMPError) { try saving.goOn() }

  var saveState: QMPSaveState { saving.state }

  func switchDisk(_ overlay: QMPOverlay) throws(QMPError) {
    do {
      try machine.switchDisks([OverlayRequest(device: overlay.device, file: overlay.file)])
    } catch {
      throw QMPError(.generic, "\(error)")
    }
  }

  func stream(_ request: QMPStreamRequest) throws(QMPError) { try jobs.start(request) }

  var blockJobs: [QMPBlockJob] { jobs.all }

  func cancelBlockJob(_ identifier: String) throws(QMPError) { try jobs.cancel(identifier) }

  func setBlockJobSpeed(_ identifier: String, _ speed: UInt64) throws(QMPError) {
    try jobs.setSpeed(identifier, speed)
  }

  /// There is one drive that is removable: the CD-ROM.
  func eject(_ drive: String, force: Bool) throws(QMPError) {
    try perform { () throws(MachineError) in try machine.eject(force: force) }
  }

  func changeMedium(of drive: String, to path: String, force: Bool) throws(QMPError) {
    try perform { () throws(MachineError) in try machine.changeMedium(to: path, force: force) }
  }

  func screendump(to path: String, format: QMPImageFormat) throws(QMPError) {
    guard let display else { throw QMPError(.generic, "There is no display adapter") }
    do {
      let picture = try display.screenshot()
      let bytes = format == .png ? try picture.png() : picture.ppm
      try Files.replace(path, with: bytes, permissions: 0o644)
    } catch {
      throw QMPError(.generic, "\(error)")
    }
  }

  func press(_ scanCodes: [UInt16], milliseconds: Int) throws(QMPError) {
    machine.press(scanCodes.map { KeyCode($0) }, milliseconds: milliseconds)
  }

  func send(_ input: [QMPInput]) throws(QMPError) {
    for item in input {
      switch item {
      case .key(let code, let pressed): machine.send(.key(KeyCode(code), pressed: pressed))
      case .absolute(let x, let y, let buttons):
        machine.send(
          .absolutePointer(x: x, y: y, buttons: PointerButtons(rawValue: buttons.rawValue)))
      case .relative(let x, let y, let wheel, let horizontal, let buttons):
        machine.send(
          .relativePointer(
            x: x, y: y, wheel: wheel, horizontalWheel: horizontal,
            buttons: PointerButtons(rawValue: buttons.rawValue)))
      }
    }
  }
}
