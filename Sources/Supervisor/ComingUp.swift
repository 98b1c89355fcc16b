import Brokering
import LinuxSystem

extension Supervisor {
  private static let lookInterval = Duration.milliseconds(500)

  /// No guest says when it has booted, but one that has leaves the processors alone.
  public func comeUp(_ desktop: DesktopID) async -> StartKind {
    guard let machine = machines[desktop], let process = machine.process else { return .booted }
    if machine.isClone { return .cloned }
    if machine.resumes { return .wentOn }
    let deadline = ContinuousClock.now.advanced(by: settings.comeUpLimit)
    var watch = BootWatch(process.identifier)
    while ContinuousClock.now < deadline, machines[desktop]?.token == machine.token,
      machines[desktop]?.ended == nil, (try? await Task.sleep(for: Self.lookInterval)) != nil
    {
      if watch.hasRested() { break }
    }
    return .booted
  }
}

/// Whether a guest that boots has begun to rest.
private struct BootWatch {
  /// Of one processor; ticks of a guest that waits take less.
  private static let restingShare = 0.25
  /// Guests wait for devices while they boot, but not for long.
  private static let restingLooks = 2

  private var time: ProcessorTime
  private var looks = 0

  init(_ process: Int32) { time = ProcessorTime(process) }

  mutating func hasRested() -> Bool {
    looks = time.shareSinceLastLook() < Self.restingShare ? looks + 1 : 0
    return looks >= Self.restingLooks
  }
}

/// What a process takes of the processors.
struct ProcessorTime {
  private let process: Int32
  private var ticks: UInt64
  private var looked: UInt64

  init(_ process: Int32) {
    self.process = process
    ticks = Self.ticks(of: process)
    looked = MonotonicClock.now
  }

  /// 1 is all of one processor.
  mutating func shareSinceLastLook() -> Double {
    let (used, now) = (Self.ticks(of: process), MonotonicClock.now)
    defer { (ticks, looked) = (used, now) }
    // A tick is 10 ms.
    return Double(used &- ticks) * 10_000_000 / Double(max(1, now &- looked))
  }

  /// Fields 14 and 15 of /proc/PID/stat.
  private static func ticks(of process: Int32) -> UInt64 {
    guard let bytes = try? Files.read("/proc/\(process)/stat", limit: 4096) else { return 0 }
    let text = String(decoding: bytes, as: UTF8.self)
    // The second field may have spaces in it; it ends with the last parenthesis.
    let fields = text[(text.lastIndex(of: ")") ?? text.startIndex)...].split(separator: " ")
    guard fields.count > 13, let user = UInt64(fields[12]), let system = UInt64(fields[13]) else {
      return 0
    }
    return user + system
  }
}
