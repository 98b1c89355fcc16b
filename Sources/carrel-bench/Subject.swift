import Foundation

/// A server under measurement: one running process, or several that serve one
/// desktop together.
final class Subject {
  let name: String
  let process: Process
  let output: Pipe
  /// What was read of it so far.
  var collected: [UInt8] = []

  /// Starts `arguments[0]`, found on PATH unless it is a path.
  init(name: String, _ arguments: [String]) throws {
    self.name = name
    process = Process()
    output = Pipe()
    process.executableURL = URL(fileURLWithPath: try Self.locate(arguments[0]))
    process.arguments = Array(arguments.dropFirst())
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = output
    process.standardError = FileHandle.standardError
    try process.run()
  }

  deinit { stop() }

  func stop() {
    guard process.isRunning else { return }
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  private static func locate(_ name: String) throws -> String {
    if name.contains("/") { return name }
    for directory in (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":") {
      let path = "\(directory)/\(name)"
      if access(path, X_OK) == 0 { return path }
    }
    throw BenchError("\(name) is not installed; run `make deps`")
  }

  /// CPU seconds of all threads so far, those that have ended included.
  static func cpuSeconds(of pid: Int32) -> Double {
    var clock = clockid_t()
    var used = timespec()
    guard clock_getcpuclockid(pid, &clock) == 0, clock_gettime(clock, &used) == 0 else { return 0 }
    return Double(used.tv_sec) + Double(used.tv_nsec) / 1e9
  }

  /// `pid` and its descendants, whichever of its threads started them.
  static func family(of pid: Int32) -> [Int32] {
    let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
    let children = tasks.flatMap { task in
      let path = "/proc/\(pid)/task/\(task)/children"
      return ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "")
        .split(separator: " ").compactMap { Int32($0) }
    }
    return [pid] + children.flatMap(family)
  }

  /// Proportional set size in bytes, split into memfd-backed (guest RAM, VRAM and
  /// surfaces) and everything else, from /proc/PID/smaps.
  static func proportionalSetSize(of pid: Int32) -> (shared: Int, own: Int) {
    let text = (try? String(contentsOfFile: "/proc/\(pid)/smaps", encoding: .utf8)) ?? ""
    var shared = 0
    var own = 0
    var isMemfd = false
    for line in text.split(separator: "\n") {
      if line.first?.isHexDigit == true, line.contains("-"), !line.hasPrefix("Pss") {
        isMemfd = line.contains("memfd:") && !line.contains("perms=r-xp")
      } else if line.hasPrefix("Pss:") {
        let kilobytes = Int(line.split(separator: " ").dropFirst().first ?? "0") ?? 0
        if isMemfd { shared += kilobytes << 10 } else { own += kilobytes << 10 }
      }
    }
    return (shared, own)
  }
}
