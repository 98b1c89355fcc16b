/// What a machine does now.
public enum MachineStatus: String, Sendable {
  /// Built, never started.
  case prelaunch
  case running
  case paused
  /// Over; `MachineEvent.ended` said why.
  case ended
}

/// Why a machine is over.
public enum EndReason: Hashable, Sendable, CustomStringConvertible {
  /// The guest switched itself off.
  case guestShutdown
  /// The guest reset itself by what is named, and the machine ends on reset.
  case guestReset(String)
  /// Somebody asked for it.
  case quit
  /// It was saved in a file to go on from there.
  case suspended
  /// The process was asked to end by this signal.
  case signal(String)
  /// The guest crashed by an exception while handling a double fault, and the machine
  /// ends on reset.
  case tripleFault
  /// KVM or the host could not go on.
  case internalError(String)

  /// One word, as it is written to exit records.
  public var word: String {
    switch self {
    case .guestShutdown: "guest-shutdown"
    case .guestReset: "guest-reset"
    case .quit: "quit"
    case .suspended: "suspended"
    case .signal: "signal"
    case .tripleFault: "triple-fault"
    case .internalError: "internal-error"
    }
  }

  public var description: String {
    switch self {
    case .guestShutdown: "the guest switched itself off"
    case .guestReset(let cause): "the guest reset itself through the \(cause)"
    case .quit: "the machine was told to quit"
    case .suspended: "the machine was suspended to a file"
    case .signal(let name): "the process received \(name)"
    case .tripleFault:
      "the guest crashed: an exception while handling a double fault (triple fault)"
    case .internalError(let text): text
    }
  }
}

/// Who had a machine reset.
public enum ResetOrigin: Hashable, Sendable {
  /// The guest, by the register that is named, or by a triple fault.
  case guest(String)
  /// A program, through the control socket.
  case control
  /// Somebody who sits before it, as with the reset button.
  case user
}

/// What happened to a machine. Nothing that stops a guest happens without one.
public enum MachineEvent: Hashable, Sendable {
  /// Guest code runs: for the first time, or again.
  case resumed
  case paused
  /// Paused because the guest cannot go on, for the reason that is given.
  case stuck(String)
  /// Everything starts anew.
  case reset(ResetOrigin)
  /// The power button was pressed on somebody's behalf.
  case powerButtonPressed
  /// The sleep button was.
  case sleepButtonPressed
  /// The guest asked for a sleeping state by this type; there is none but S5, and it
  /// goes on awake. Told once until the next reset.
  case sleepRefused(type: UInt16)
  /// The tray of the CD-ROM drive, whose name this is, was opened or closed, by the
  /// guest or from outside. Of moves in quick succession the last one is told.
  case trayMoved(drive: String, isOpen: Bool)
  /// The guest gave memory up to its balloon, or took some back: it has so many bytes now.
  /// Of changes in quick succession the last one is told.
  case balloonChanged(memory: UInt64)
  case ended(EndReason)
}
