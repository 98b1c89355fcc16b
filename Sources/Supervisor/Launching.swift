import Brokering
import Glibc
import LinuxSystem

/// The steps of one start that block. Each leaves the directory in a state that a
/// later start, or a survey after a crash, understands.
struct Launching: Sendable {
  let request: LaunchRequest
  let directory: DesktopDirectory
  let program: String
  let failpoints: Failpoints
  /// Told what this start has come to; must not block.
  let progress: @Sendable (StartProgress.Step) -> Void

  func prepare() throws {
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
    try directory.clearTraces()
    try directory.store(LaunchRecord(generation: request.generation), at: directory.launch)
    failpoints.hit("supervisor.recorded")
    try Files.replace(directory.desktopFile, with: request.desktop.rawValue.utf8)
    // Empty for nobody: the VMM wants a file, and looks again when it is replaced.
    try Files.replace(directory.userFile, with: Array((request.user?.rawValue ?? "").utf8))
    try Files.replace(directory.keyboardFile, with: Array(request.keyboardLayout.utf8))
    try prepareDisk()
    try Files.remove(directory.suspendedDraft)
    // What a desktop that starts anew does to its disk, nothing saved before may see.
    if !request.resumes || request.disk == .fresh { try Files.remove(directory.suspended) }
    failpoints.hit("supervisor.prepared")
  }

  private func prepareDisk() throws {
    let hasDisk = request.image.kind == .disk || request.diskMiB != nil
    if request.disk == .fresh { try Files.remove(directory.variables) }
    if request.disk == .fresh || !hasDisk { try Files.remove(directory.disk) }
    guard hasDisk, !Files.exists(directory.disk) else { return }
    guard request.image.kind == .disk else { return try makeEmptyDisk() }
    try DiskCopy.make(
      from: request.image.path, to: directory.disk, draft: directory.diskDraft
    ) { progress(.copyingDisk(percent: $0)) }
  }

  private func makeEmptyDisk() throws {
    let file = try FileDescriptor.open(directory.diskDraft, [.writable, .create, .truncate])
    try file.setSize(UInt64(clamping: request.diskMiB ?? 0) << 20)
    try file.synchronize()
    guard rename(directory.diskDraft, directory.disk) == 0 else {
      throw SystemError(code: errno, "put \(directory.disk) in place")
    }
  }

  /// Starts the VMM in a session of its own: it lives on when `carreld` does not.
  func spawn() throws -> ChildProcess {
    let log = try LogFile.open(directory.log)
    var child = ChildProcess.Request(
      program,
      VMMCommand(
        request, in: directory, goesOn: request.resumes && Files.exists(directory.suspended)
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
