import CarrelBase

/// An error as QMP reports it: a class that programs match, a text that people read.
package struct QMPError: CarrelError, Equatable {
  package enum Kind: String, Hashable, Sendable {
    case generic = "GenericError"
    case commandNotFound = "CommandNotFound"
    case deviceNotActive = "DeviceNotActive"
  }

  package let kind: Kind
  package let context: String
  package var cause: (any Error)? { nil }

  package init(_ kind: Kind = .generic, _ context: String) {
    self.kind = kind
    self.context = context
  }

  var json: JSON { ["class": .string(kind.rawValue), "desc": .string(context)] }
}

/// What the machine is doing (QMP type `RunState`, as far as it occurs).
package enum QMPRunState: String, Sendable, CaseIterable {
  case prelaunch
  case running
  case paused
  case shutdown
  case internalError = "internal-error"
  case guestPanicked = "guest-panicked"
}

package enum QMPImageFormat: String, Sendable { case ppm, png }

/// Mouse buttons as bits: left, middle, right, side, extra from bit 0.
package struct QMPButtons: OptionSet, Hashable, Sendable {
  package let rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }
}

/// Input in the terms of a device.
package enum QMPInput: Hashable, Sendable {
  /// A scan code of set 1, prefix in the high byte.
  case key(UInt16, pressed: Bool)
  /// 0 … 65535 over the whole screen.
  case absolute(x: UInt16, y: UInt16, buttons: QMPButtons)
  /// `y` downwards; `wheel` away from the user is positive.
  case relative(x: Int, y: Int, wheel: Int, horizontalWheel: Int, buttons: QMPButtons)
}

/// A processor and the host's thread behind it.
package struct QMPProcessor: Hashable, Sendable {
  package let index: Int
  package let threadIdentifier: Int

  package init(index: Int, threadIdentifier: Int) {
    self.index = index
    self.threadIdentifier = threadIdentifier
  }
}

/// A drive, and the image in it.
package struct QMPDrive: Hashable, Sendable {
  package struct Medium: Hashable, Sendable {
    package let path: String
    package let size: UInt64
    package let isReadOnly: Bool
    /// The image and what it is based on, from the top; a raw one alone where it is empty.
    package let layers: [Layer]
    package let limits: QMPLimits

    package init(
      path: String, size: UInt64, isReadOnly: Bool, layers: [Layer] = [],
      limits: QMPLimits = QMPLimits()
    ) {
      self.path = path
      self.size = size
      self.isReadOnly = isReadOnly
      self.layers = layers.isEmpty ? [Layer(path: path, format: "raw")] : layers
      self.limits = limits
    }
  }

  /// One of the images that a medium is made of.
  package struct Layer: Hashable, Sendable {
    package let path: String
    package let format: String

    package init(path: String, format: String) {
      self.path = path
      self.format = format
    }
  }

  package let name: String
  package let isRemovable: Bool
  package let isLocked: Bool
  package let isTrayOpen: Bool
  package let medium: Medium?

  package init(
    name: String, isRemovable: Bool, isLocked: Bool, isTrayOpen: Bool, medium: Medium?
  ) {
    self.name = name
    self.isRemovable = isRemovable
    self.isLocked = isLocked
    self.isTrayOpen = isTrayOpen
    self.medium = medium
  }
}

/// How much memory a guest has, and what it says of it.
package struct QMPBalloon: Hashable, Sendable {
  /// Bytes.
  package let actual: UInt64
  /// By the names of QEMU's `guest-stats`.
  package let statistics: [String: UInt64]
  /// Seconds since 1970; 0 when the guest told nothing yet.
  package let lastUpdate: Int64

  package init(actual: UInt64, statistics: [String: UInt64], lastUpdate: Int64) {
    self.actual = actual
    self.statistics = statistics
    self.lastUpdate = lastUpdate
  }
}

/// Something that happened to the machine.
package enum QMPEvent: Hashable, Sendable {
  case stop
  case resume
  case powerDown
  case reset(byGuest: Bool, reason: String)
  case shutdown(byGuest: Bool, reason: String)
  case trayMoved(drive: String, isOpen: Bool)
  /// The guest has so many bytes of memory now.
  case balloonChanged(actual: UInt64)
  /// What became of a `carrel-save`.
  case saved(QMPSaveState)
  case blockJobEnded(QMPBlockJob, QMPBlockJob.End)
  /// The guest cannot go on. `action` is "pause", and STOP follows, or "poweroff": the
  /// process ends, and SHUTDOWN follows.
  case guestPanicked(detail: String, action: String)

  package enum Name: String, CaseIterable, Sendable {
    case stop = "STOP"
    case resume = "RESUME"
    case powerDown = "POWERDOWN"
    case reset = "RESET"
    case shutdown = "SHUTDOWN"
    case trayMoved = "DEVICE_TRAY_MOVED"
    case balloonChanged = "BALLOON_CHANGE"
    case saved = "CARREL_SAVE_STATUS"
    case blockJobCancelled = "BLOCK_JOB_CANCELLED"
    case blockJobCompleted = "BLOCK_JOB_COMPLETED"
    case guestPanicked = "GUEST_PANICKED"
  }

  package var name: Name {
    switch self {
    case .stop: .stop
    case .resume: .resume
    case .powerDown: .powerDown
    case .reset: .reset
    case .shutdown: .shutdown
    case .trayMoved: .trayMoved
    case .balloonChanged: .balloonChanged
    case .saved: .saved
    case .blockJobEnded(_, .cancelled): .blockJobCancelled
    case .blockJobEnded: .blockJobCompleted
    case .guestPanicked: .guestPanicked
    }
  }

  var data: JSON? {
    switch self {
    case .stop, .resume, .powerDown: nil
    case .reset(let byGuest, let reason), .shutdown(let byGuest, let reason):
      ["guest": .bool(byGuest), "reason": .string(reason)]
    case .trayMoved(let drive, let isOpen):
      ["device": .string(drive), "id": .string(drive), "tray-open": .bool(isOpen)]
    case .balloonChanged(let actual): ["actual": .integer(Int64(clamping: actual))]
    case .saved(let state): state.json
    case .blockJobEnded(let job, let end): job.json(end)
    case .guestPanicked(let detail, let action):
      ["action": .string(action), "info": ["type": "carrel", "detail": .string(detail)]]
    }
  }

  /// The message, stamped with UTC.
  package func message(seconds: Int64, microseconds: Int64) -> JSON {
    var members: [String: JSON] = [
      "event": .string(name.rawValue),
      "timestamp": ["seconds": .integer(seconds), "microseconds": .integer(microseconds)],
    ]
    members["data"] = data
    return .object(members)
  }
}

/// The machine as the control socket drives it.
///
/// Called on the thread that serves the socket, without the device lock. Nothing
/// blocks for longer than the command itself takes; what a command sets off is told
/// by events.
package protocol QMPMachine: AnyObject {
  var name: String { get }
  /// Major, minor, micro of this program.
  var version: (Int, Int, Int) { get }
  var runState: QMPRunState { get }

  /// Stops the vCPUs; no effect when they are stopped.
  func stop() throws(QMPError)
  /// Lets them go on.
  func resume() throws(QMPError)
  func reset() throws(QMPError)
  /// Presses the ACPI power button.
  func pressPowerButton() throws(QMPError)
  /// Presses the ACPI sleep button.
  func pressSleepButton() throws(QMPError)
  /// Ends the process soon: the reply is sent first.
  func quit()
  /// Writes a picture of the screen to a file.
  func screendump(to path: String, format: QMPImageFormat) throws(QMPError)
  /// Presses the keys one after another and releases them after `milliseconds`,
  /// without waiting for that.
  func press(_ scanCodes: [UInt16], milliseconds: Int) throws(QMPError)
  func send(_ input: [QMPInput]) throws(QMPError)

  var processors: [QMPProcessor] { get }
  var drives: [QMPDrive] { get }
  /// Raises a non-maskable interrupt at every processor.
  func injectNMI() throws(QMPError)
  /// Opens the tray of the removable drive of that name, and takes the medium out.
  func eject(_ drive: String, force: Bool) throws(QMPError)
  /// Plugs the cable of a network card (`net0`, …) in, or pulls it.
  func setLink(_ card: String, isUp: Bool) throws(QMPError)
  /// Has the guest give memory up until it has `bytes`, or take some back.
  func setBalloon(_ bytes: UInt64) throws(QMPError)
  func readBalloon() throws(QMPError) -> QMPBalloon
  /// Begins to save the machine in a file.
  func save(_ request: QMPSaveRequest) throws(QMPError)
  /// Has one that holds go on.
  func continueSave() throws(QMPError)
  var saveState: QMPSaveState { get }
  /// Has a disk go over to a new overlay.
  func switchDisk(_ overlay: QMPOverlay) throws(QMPError)
  /// Has a disk begin to take in what it is based on.
  func stream(_ request: QMPStreamRequest) throws(QMPError)
  /// Those that are under way.
  var blockJobs: [QMPBlockJob] { get }
  /// Has one of them end, with nothing lost.
  func cancelBlockJob(_ identifier: String) throws(QMPError)
  /// Bytes a second; 0 for no limit.
  func setBlockJobSpeed(_ identifier: String, _ speed: UInt64) throws(QMPError)
  /// Limits the requests of the disk of that name from now on.
  func limit(_ drive: String, to limits: QMPLimits) throws(QMPError)
  /// Puts an image into it, in place of what is there.
  func changeMedium(of drive: String, to path: String, force: Bool) throws(QMPError)
}
