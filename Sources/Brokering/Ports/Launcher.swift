import CarrelBase

/// Starts, stops and watches the VMMs of this host. Implemented by `Supervisor`.
///
/// The broker decides, writes its decision to the store, and then calls; after a
/// crash it may call again. So **every method is idempotent**: starting a
/// generation that runs, stopping or discarding what is gone, are successes.
/// Calls for different desktops run side by side; the broker never has two calls
/// for one desktop under way, except that `stop` and `discard` may overtake a
/// `start`, which then throws.
///
/// A **generation** counts the starts of one desktop. The launcher records it in
/// the desktop's runtime directory before it spawns, so that a survivor of a
/// `carreld` crash is known for the start that made it.
public protocol Launcher: SnapshotKeeper {
  /// Starts a VMM and returns when its display link accepts connections, or
  /// throws within 30 s with nothing left running. `disk == .fresh` first throws
  /// away whatever disk an earlier generation left.
  func start(_ request: LaunchRequest) async throws(LaunchError)

  /// Waits until the guest of a desktop that was started just now has come up, so that others
  /// may boot beside it, and says how it did. It ends in time also for a guest that never rests,
  /// and when the VMM ends; that it was cancelled makes it end at once.
  func comeUp(_ desktop: DesktopID) async -> StartKind

  /// Ends the VMM; returns when the process is gone. With `grace`, presses the
  /// power button, tells the guest's agent, and waits that many seconds before killing it.
  func stop(_ desktop: DesktopID, graceSeconds: Int?) async throws(LaunchError)

  /// Ends the VMM at once and deletes every trace of the desktop: disks,
  /// runtime directory, exit records. When it returns nothing a user left in it
  /// can be read again.
  func discard(_ desktop: DesktopID) async throws(LaunchError)

  /// Tells the running desktop whose it is and what keyboard its user has, for a guest
  /// that looks. Idempotent; returns when a guest that looks will see it. What a later
  /// `start` is told replaces it, and `discard` removes it.
  func identify(_ desktop: DesktopID, as identity: DesktopIdentity) async throws(LaunchError)

  /// Presses the power button and returns; the guest decides.
  func pressPowerButton(_ desktop: DesktopID) async throws(LaunchError)

  /// Limits the running desktop's disk from now on, whatever it was told before. Idempotent;
  /// returns when requests go at the new rate. One without a disk has nothing to limit.
  func limitDisk(_ desktop: DesktopID, to limits: DiskLimits) async throws(LaunchError)

  /// Has the kernel know when to end the desktop's VMM, should it run out of memory.
  /// Idempotent; without a running VMM it does nothing. What cannot be set is logged.
  func prioritize(_ desktop: DesktopID, as priority: MemoryPriority) async

  /// A hard reset. The VMM, its display link and its viewers stay.
  func reset(_ desktop: DesktopID) async throws(LaunchError)

  /// Saves the running desktop in a file, from which a start that `resumes` goes on, and ends
  /// its VMM, whose exit has the reason `suspended`. When it throws, the desktop runs on.
  func suspend(_ desktop: DesktopID) async throws(LaunchError)

  /// The screen as PNG.
  func screenshot(_ desktop: DesktopID) async throws(LaunchError) -> [UInt8]

  /// Asks the guest agent in the running desktop, and returns its answer. Ends in time also
  /// with an agent that never answers, or that is hostile. Throws kinds `noAgent` and
  /// `agentRefused`, too.
  func ask(_ desktop: DesktopID, _ request: AgentRequest) async throws(LaunchError) -> AgentAnswer

  /// What an earlier `carreld` left: each desktop directory found, running (now
  /// adopted and watched) or ended (with its exit record). Called once, first.
  func survey() async throws(LaunchError) -> [Survivor]

  /// The end of any VMM, asked for or not, exactly once each, also for adopted
  /// ones. One consumer. Not sent for a `start` that throws.
  var exits: AsyncStream<DesktopExit> { get }

  /// How far starts are that are under way. One consumer. Only what can be measured is
  /// told; a start may tell nothing at all.
  var progress: AsyncStream<StartProgress> { get }

  /// Where the display link of `desktop` listens, now or once it runs. Absolute;
  /// the same for every generation.
  func displayLink(of desktop: DesktopID) -> String
}

extension Launcher {
  public var progress: AsyncStream<StartProgress> { AsyncStream { $0.finish() } }
  public func comeUp(_ desktop: DesktopID) async -> StartKind { .cloned }
}

/// How a guest came to run.
public enum StartKind: Hashable, Sendable {
  /// From its firmware or kernel on, which keeps a processor busy for a while.
  case booted
  /// As a copy of a template's, which has booted already.
  case cloned
  /// From where it was saved.
  case wentOn
}

/// How far the start of one desktop is.
public struct StartProgress: Hashable, Sendable {
  public enum Step: Hashable, Sendable {
    /// The image is copied to a disk of the desktop's own; so much of it is there.
    case copyingDisk(percent: Int)
    /// Images under its disk that nobody needs any more are merged with others; so much of
    /// that is done. `stop` and `discard` end it soon, and the next start goes on with it.
    case mergingDisk(percent: Int)
    /// The VMM runs, and does not take viewers yet.
    case switchingOn

    public var text: String {
      switch self {
      case .copyingDisk: "copying its disk"
      case .mergingDisk: "merging its disk"
      case .switchingOn: "switching on"
      }
    }

    /// 0...100, where something is measured.
    public var percent: Int? {
      switch self {
      case .copyingDisk(let percent), .mergingDisk(let percent): percent
      case .switchingOn: nil
      }
    }
  }

  public let desktop: DesktopID
  public let generation: UInt64
  public let step: Step

  public init(desktop: DesktopID, generation: UInt64, step: Step) {
    self.desktop = desktop
    self.generation = generation
    self.step = step
  }
}

/// Everything a launcher must know to start one desktop.
public struct LaunchRequest: Hashable, Sendable {
  public enum Disk: String, Hashable, Codable, Sendable {
    /// As the image has it: an earlier disk of this desktop, and its UEFI variables, are
    /// thrown away.
    case fresh
    /// The desktop's own disk and variables, if there are any; otherwise fresh.
    case keep
  }

  public let desktop: DesktopID
  public let generation: UInt64
  public let image: Image
  public let memoryMiB: Int
  public let cpus: Int
  /// An empty disk of that size beside an ISO.
  public let diskMiB: Int?
  public let hardware: Hardware
  public let disk: Disk
  public let diskLimits: DiskLimits
  /// Go on from where the desktop was suspended. Where nothing is left of that, and whenever
  /// this is false, it starts anew.
  public let resumes: Bool
  /// Known when the desktop is started for somebody: shown by the guest.
  public let user: UserName?
  /// `en-us`, `de`, `fr`: how keysyms become key codes.
  public let keyboardLayout: String

  public init(
    desktop: DesktopID, generation: UInt64, image: Image, memoryMiB: Int, cpus: Int,
    diskMiB: Int? = nil, hardware: Hardware = Hardware(), disk: Disk,
    diskLimits: DiskLimits = DiskLimits(), resumes: Bool = false, user: UserName?,
    keyboardLayout: String
  ) {
    self.desktop = desktop
    self.generation = generation
    self.image = image
    self.memoryMiB = memoryMiB
    self.cpus = cpus
    self.diskMiB = diskMiB
    self.hardware = hardware
    self.disk = disk
    self.diskLimits = diskLimits
    self.resumes = resumes
    self.user = user
    self.keyboardLayout = keyboardLayout
  }
}

/// A desktop that was there when `carreld` started.
public struct Survivor: Hashable, Sendable {
  public enum State: Hashable, Sendable {
    case running
    /// Gone; `nil` when it left no exit record.
    case ended(ExitReason?)
  }

  public let desktop: DesktopID
  /// 0 when it was not recorded.
  public let generation: UInt64
  public let state: State

  public init(desktop: DesktopID, generation: UInt64, state: State) {
    self.desktop = desktop
    self.generation = generation
    self.state = state
  }
}

/// One VMM's end.
public struct DesktopExit: Hashable, Sendable {
  public let desktop: DesktopID
  public let generation: UInt64
  public let reason: ExitReason

  public init(desktop: DesktopID, generation: UInt64, reason: ExitReason) {
    self.desktop = desktop
    self.generation = generation
    self.reason = reason
  }
}

/// Why a VMM ended.
public enum ExitReason: Hashable, Sendable, CustomStringConvertible {
  /// The guest switched itself off.
  case guestShutdown
  /// We asked it to.
  case stopped
  /// It is in a file, to go on from there.
  case suspended
  /// It failed: triple fault, internal error, killed. The text says which.
  case crashed(String)

  public var description: String {
    switch self {
    case .guestShutdown: "the guest shut down"
    case .stopped: "stopped"
    case .suspended: "suspended"
    case .crashed(let detail): detail
    }
  }
}

/// Why a launcher could not do it.
public struct LaunchError: CarrelError {
  public enum Kind: String, Hashable, Sendable {
    /// The image is missing or not what the pool says.
    case image
    /// No room for a disk or directory.
    case noSpace
    /// The VMM did not start, or not in time.
    case startFailed
    /// No VMM runs for this desktop.
    case notRunning
    /// It runs but does not answer.
    case unresponsive
    /// It runs, and no guest agent in it answers as it should.
    case noAgent
    /// The guest agent answered that it cannot.
    case agentRefused
  }

  public let kind: Kind
  public let context: String
  public let cause: (any Error)?

  public init(_ kind: Kind, _ context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }
}

/// Whose a running desktop is.
public struct DesktopIdentity: Hashable, Sendable {
  public let user: UserName
  /// One of `PoolPolicies.keyboardLayouts`.
  public let keyboardLayout: String

  public init(user: UserName, keyboardLayout: String) {
    self.user = user
    self.keyboardLayout = keyboardLayout
  }
}
