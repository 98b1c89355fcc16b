import Brokering
import Glibc
import LinuxSystem
import QMP

/// The steps of one start that block. Each leaves the directory in a state that a
/// later start, or a survey after a crash, understands.
struct Launching: Sendable {
  let request: LaunchRequest
  let directory: DesktopDirectory
  let program: String
  let failpoints: Failpoints
  /// What it is cloned from; without one it boots.
  var template: DesktopTemplate?
  let interruption: Interruption
  /// Told what this start has come to; must not block.
  let progress: @Sendable (StartProgress.Step) -> Void

  /// - Returns: the disk to start it with, if it has one.
  func prepare() throws -> DesktopDisk? {
    guard access(request.image.path, R_OK) == 0 else {
      throw LaunchError(
        .image,
        "image '\(request.image.path)' of desktop '\(request.desktop)' cannot be read: put it "
          + "back or give the pool another")
    }
    try directory.create()
    guard !directory.isLocked else {
      throw LaunchError(
        .startFailed,
        "another VMM holds \(directory.lock): end it, then start desktop '\(request.desktop)' again"
      )
    }
    failpoints.hit("supervisor.created")
    // What may take long comes before there is word of a start, which a crash would end.
    try tidyDisk()
    try directory.clearTraces()
    try directory.store(LaunchRecord(generation: request.generation), at: directory.launch)
    failpoints.hit("supervisor.recorded")
    try Files.replace(directory.desktopFile, with: request.desktop.rawValue.utf8)
    // Empty for nobody: the VMM wants a file, and looks again when it is replaced.
    try Files.replace(directory.userFile, with: Array((request.user?.rawValue ?? "").utf8))
    try Files.replace(directory.keyboardFile, with: Array(request.keyboardLayout.utf8))
    if request.user != nil {
      try directory.noteSession()
    } else if request.disk == .fresh {
      try Files.remove(directory.session)
    }
    let disk = try prepareDisk()
    try Files.remove(directory.suspendedDraft)
    // What a desktop that starts anew does to its disk, nothing saved before may see.
    if !request.resumes || request.disk == .fresh { try directory.removeSuspended() }
    // What that needed, and what an earlier VMM had for its next backup. It is only room.
    if request.disk == .keep { try? SnapshotShelf(directory: directory).endRun() }
    failpoints.hit("supervisor.prepared")
    return disk
  }

  private func prepareDisk() throws -> DesktopDisk? {
    do {
      return try DiskPreparation(request: request, directory: directory, template: template) {
        percent throws(SystemError) in
        guard !interruption.isWanted else { throw SystemError(code: ECANCELED, "copy the disk") }
        progress(.copyingDisk(percent: percent))
      }.run()
    } catch {
      // No VMM was started, so that none is missed after a restart of carreld.
      if interruption.isWanted { try Files.remove(directory.launch) }
      try interruption.check()
      throw error
    }
  }

  /// A chain that stays long is no reason not to start, as long as it may be.
  private func tidyDisk() throws {
    guard request.disk == .keep else { return }
    do {
      try DiskTidying(directory: directory, program: program, interruption: interruption) {
        progress(.mergingDisk(percent: $0))
      }.run()
    } catch let error as BrokerError {
      let disks = try DiskLayers(in: directory.state)
      guard let top = disks.top,
        try disks.chain(from: top).count > DiskTidying.mostTolerated
      else { return }
      throw error
    }
  }

  /// Starts the VMM in a session of its own: it lives on when `carreld` does not.
  func spawn(with disk: DesktopDisk?) throws -> ChildProcess {
    let log = try LogFile.open(directory.log)
    var child = ChildProcess.Request(
      program,
      VMMCommand(
        request, in: directory, disk: disk,
        goesOn: request.resumes && Files.exists(directory.suspended)
      ).arguments)
    child.environment = ["PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"]
    child.directory = directory.runtime
    child.descriptors = [0: try FileDescriptor.open("/dev/null"), 1: log, 2: log]
    child.newSession = true
    failpoints.hit("supervisor.spawn.before")
    let process = try ChildProcess(child)
    failpoints.hit("supervisor.spawn.after")
    progress(.switchingOn)
    return process
  }

  /// Has the template's process make the VMM. The child is not ours.
  func clone(
    by server: TemplateServer, with disk: DesktopDisk?
  ) throws -> ProcessHandle {
    progress(.switchingOn)
    if request.hardware.network != .none { try Files.replace(directory.unplugged, with: []) }
    return try server.clone(
      CloneRequest(request, in: directory, disk: disk), log: try LogFile.open(directory.log))
  }

  /// What went wrong, as the broker is told.
  func explain(_ error: any Error) -> LaunchError {
    if let error = error as? SystemError, error.kind == .noSpace {
      return LaunchError(
        .noSpace,
        "there is no room for desktop '\(request.desktop)': free some under "
          + "\(directory.state) and \(directory.runtime)", cause: error)
    }
    return LaunchError(
      .startFailed, "desktop '\(request.desktop)' could not be started", cause: error)
  }
}
