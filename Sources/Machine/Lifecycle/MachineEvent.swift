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
  /// Somebody asked for it.
  case quit
  /// The process was asked to end by this signal.
  case signal(String)
  /// The guest's last resort: an exception while handling a double fault.
  case tripleFault
  /// KVM or the host could not go on.
  case internalError(String)

  /// One word, as it is written to exit records.
  public var word: String {
    switch self {
    case .guestShutdown: "guest-shutdown"
    case .quit: "quit"
    case .signal: "signal"
    case .tripleFault: "triple-fault"
    case .internalError: "internal-error"
    }
  }

  public var description: String {
    switch self {
    case .guestShutdown: "the guest switched itself off"
    case .quit: "the machine was told to quit"
    case .signal(let name): "the process received \(name)"
    case .tripleFault:
      "the guest crashed: an exception while handling a double fault (triple fault)"
    case .internalError(let text): text
    }
  }
}

/// What happened to a machine. Nothing that stops a guest happens without one.
public enum MachineEvent: Hashable, Sendable {
  /// Guest code runs: for the first time, or again.
  case resumed
  case paused
  /// Everything starts anew. `byGuest` names the register that asked for it.
  case reset(byGuest: String?)
  /// The power button was pressed on somebody's behalf.
  case powerButtonPressed
  case ended(EndReason)
}
