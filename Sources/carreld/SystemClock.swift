import Brokering
import Foundation

/// The host's clock.
struct SystemClock: BrokerClock {
  var now: Timestamp {
    Timestamp(milliseconds: Int64(Date().timeIntervalSince1970 * 1000))
  }

  func sleep(until deadline: Timestamp) async {
    let (span, overflow) = deadline.milliseconds.subtractingReportingOverflow(now.milliseconds)
    guard !overflow, span > 0 else { return }
    // Wall clocks are set: look again at least once a minute.
    try? await Task.sleep(for: .milliseconds(min(span, 60_000)))
  }
}

extension Failpoints {
  /// `CARREL_FAILPOINT=store.commit.before:3` ends the process, as `kill -9` does,
  /// at the third time that point is passed. For tests of crashes.
  static func fromEnvironment() -> Failpoints {
    guard let text = ProcessInfo.processInfo.environment["CARREL_FAILPOINT"], !text.isEmpty else {
      return .none
    }
    let parts = text.split(separator: ":")
    let name = String(parts.first ?? "")
    let countdown = Countdown(from: parts.count > 1 ? Int(parts[1]) ?? 1 : 1)
    return Failpoints { point in
      if point == name, countdown.isOver() { kill(getpid(), SIGKILL) }
    }
  }
}
