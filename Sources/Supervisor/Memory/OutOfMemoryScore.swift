import Brokering
import LinuxSystem

/// How soon the kernel ends a process when memory runs out: proc_pid_oom_score_adj(5). A
/// thousand is as if the process had all memory.
public enum OutOfMemoryScore {
  /// For `carreld` and the display processes that it starts.
  public static let protected = -900
  /// A template's process: clones run on without it, and another is started when it is needed.
  static let template = 600
  /// Tools that make images.
  static let tool = 300

  /// Privileges would be needed for less than a process had before it was given any more.
  static func of(_ priority: MemoryPriority) -> Int {
    switch priority {
    case .spare: 900
    case .idle: 500
    case .inUse: 100
    }
  }

  /// Writes it for a process, which may have ended.
  static func set(_ score: Int, of process: ProcessHandle) throws(SystemError) {
    let file = try FileDescriptor.open(
      "/proc/\(process.identifier)/oom_score_adj", .writeOnly)
    // What was opened is of this process, if it runs still: its number was not another's then.
    guard process.isRunning else { return }
    try file.writeAll(Array("\(score)".utf8))
  }

  /// For this process and what it starts from now on; whether it was allowed.
  @discardableResult
  public static func protectThisProcess() -> Bool {
    guard let file = try? FileDescriptor.open("/proc/self/oom_score_adj", .writeOnly) else {
      return false
    }
    return (try? file.writeAll(Array("\(protected)".utf8))) != nil
  }
}

extension Supervisor {
  public func prioritize(_ desktop: DesktopID, as priority: MemoryPriority) async {
    guard let process = machine(of: desktop)?.process else { return }
    setScore(of: process, desktop, priority)
  }

  /// Of one that has just been started: it has this process's.
  func setScore(of process: ProcessHandle, _ request: LaunchRequest) {
    setScore(of: process, request.desktop, request.user == nil ? .spare : .inUse)
  }

  private func setScore(of process: ProcessHandle, _ desktop: DesktopID, _ priority: MemoryPriority)
  {
    do {
      try OutOfMemoryScore.set(OutOfMemoryScore.of(priority), of: process)
    } catch  where !process.isRunning {
      return
    } catch {
      logger.warning(
        "should memory run out, the wrong desktop may be ended: \(error)",
        metadata: ["desktop": "\(desktop)"])
    }
  }
}
