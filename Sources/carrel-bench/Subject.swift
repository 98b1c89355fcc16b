import Foundation

/// A server under measurement: one running process, or several that serve one
/// desktop together.
final class Subject {
  let name: String
  let process: Process
  let output: Pipe
  private let input: Pipe?
  /// What was read of it so far.
  var collected: [UInt8] = []

  /// Starts `arguments[0]`, found on PATH unless it is a path.
  ///
  /// - Parameter isSpokenTo: whether `tell` is used; `output` has its complaints too then.
  init(name: String, _ arguments: [String], isSpokenTo: Bool = false) throws {
    self.name = name
    process = Process()
    output = Pipe()
    input = isSpokenTo ? Pipe() : nil
    process.executableURL = URL(fileURLWithPath: try Self.locate(arguments[0]))
    process.arguments = Array(arguments.dropFirst())
    process.standardInput = input ?? FileHandle.nullDevice
    process.standardOutput = output
    process.standardError = isSpokenTo ? output : FileHandle.standardError
    try process.run()
  }

  deinit { stop() }

  func stop() {
    guard process.isRunning else { return }
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  /// Writes to its standard input.
  func tell(_ text: String) throws {
    try input?.fileHandleForWriting.write(contentsOf: Data(text.utf8))
  }

  /// Where a program is; throws when it is nowhere.
  static func locate(_ name: String) throws -> String {
    if name.contains("/") { return name }
    for directory in (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":") {
      let path = "\(directory)/\(name)"
      if access(path, X_OK) == 0 { return path }
    }
    throw BenchError("\(name) is not installed; run `make deps`", kind: .program)
  }

  /// CPU seconds of all threads so far, those that have ended included.
  static func cpuSeconds(of pid: Int32) -> Double {
    var clock = clockid_t()
    var used = timespec()
    guard clock_getcpuclockid(pid, &clock) == 0, clock_gettime(clock, &used) == 0 else { return 0 }
    return Double(used.tv_sec) + Double(used.tv_nsec) / 1e9
  }

  /// CPU seconds outside of kernel and guest so far, from /proc/PID/stat (proc(5)).
  static func userSeconds(of pid: Int32) -> Double {
    let text = kernelText("/proc/\(pid)/stat")
    // After the name, which may hold spaces, comes field 3; 14 is utime, which has
    // guest_time, 43, in it.
    let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
    guard fields.count > 40, let user = Double(fields[11]), let guest = Double(fields[40]) else {
      return 0
    }
    return (user - guest) / Double(sysconf(Int32(_SC_CLK_TCK)))
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

  /// Proportional set size in bytes from /proc/PID/smaps, split into what the guest sees
  /// and everything else. The former is memfds (RAM, VRAM and surfaces) and anonymous
  /// mappings of just the size of RAM or VRAM, which is what QEMU has.
  static func proportionalSetSize(of pid: Int32) -> (shared: Int, own: Int) {
    let text = kernelText("/proc/\(pid)/smaps")
    var shared = 0
    var own = 0
    var isShared = false
    var isAnonymous = false
    func kilobytes(_ line: Substring) -> Int {
      Int(line.split(separator: " ").dropFirst().first ?? "0") ?? 0
    }
    for line in text.split(separator: "\n") {
      if line.first?.isHexDigit == true, line.contains("-"), !line.hasPrefix("Pss") {
        isShared = line.contains("memfd:") && !line.contains("perms=r-xp")
        // Address, permissions, offset, device, inode, and no path.
        isAnonymous = line.split(separator: " ").count == 5
      } else if line.hasPrefix("Size:") {
        if isAnonymous && guestSizes.contains(kilobytes(line) << 10) { isShared = true }
      } else if line.hasPrefix("Pss:") {
        if isShared { shared += kilobytes(line) << 10 } else { own += kilobytes(line) << 10 }
      }
    }
    return (shared, own)
  }

  /// Of the guests here: RAM and, by default, VRAM.
  private static let guestSizes = [256 << 20, 16 << 20]
}
