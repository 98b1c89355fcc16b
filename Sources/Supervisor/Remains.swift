import Brokering
import LinuxSystem

/// What an earlier `carreld` left of one desktop.
struct Remains: Sendable {
  /// The VMM, if it runs.
  let process: ProcessHandle?
  /// 0 when it was not recorded.
  let generation: UInt64
  /// Why the VMM ended, if it said so.
  let exit: ExitReason?

  /// How long a VMM may take from its start to the file that names it.
  private static let patience = Duration.seconds(3)
  /// How long one that runs may take to its sockets.
  private static let patienceWithRunning = Duration.seconds(15)

  /// Looks. A VMM whose starter was killed the moment after may not have written who
  /// it is, or not have opened its sockets: this waits for both.
  static func of(_ directory: DesktopDirectory) async -> Remains {
    let began = ContinuousClock.now
    while true {
      let launch = directory.load(LaunchRecord.self, from: directory.launch)
      let exit = directory.load(ExitRecord.self, from: directory.exit)
      let identity = directory.load(VMMIdentity.self, from: directory.identity)
      let process = identity.flatMap {
        try? ProcessHandle(identifier: $0.pid, startTime: $0.startTime)
      }
      let hasSockets = Files.exists(directory.displayLink) && Files.exists(directory.control)
      let mayYetAppear =
        process == nil ? identity == nil && exit == nil && launch != nil : !hasSockets
      let limit = process == nil ? patience : patienceWithRunning
      if !mayYetAppear || ContinuousClock.now - began >= limit {
        return Remains(
          process: process, generation: launch?.generation ?? 0,
          exit: directory.isSuspended ? .suspended : exit?.exitReason)
      }
      try? await Task.sleep(for: .milliseconds(20))
    }
  }

  /// The desktops whose VMMs run in a runtime directory, whoever started them.
  static func running(in runtimeDirectory: String) async throws(SystemError) -> [DesktopID] {
    let found = try DesktopDirectory.all(
      runtimeRoot: runtimeDirectory, stateRoot: runtimeDirectory)
    return await withTaskGroup(of: DesktopID?.self) { group in
      for desktop in found {
        let directory = DesktopDirectory(
          desktop: desktop, runtimeRoot: runtimeDirectory, stateRoot: runtimeDirectory)
        group.addTask {
          let isRunning = await of(directory).process != nil || directory.isLocked
          return isRunning ? desktop : nil
        }
      }
      return await group.reduce(into: []) { if let desktop = $1 { $0.append(desktop) } }.sorted()
    }
  }
}
