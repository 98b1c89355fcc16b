import Foundation
import LinuxSystem

struct BenchError: Error, CustomStringConvertible {
  enum Kind {
    /// What is measured did not behave, or could not be measured.
    case measurement
    /// A program is not installed, or ended by itself.
    case program
  }

  let kind: Kind
  let description: String

  init(_ description: String, kind: Kind = .measurement) {
    self.kind = kind
    self.description = description
  }
}

enum Clock {
  /// Monotonic seconds.
  static var seconds: Double {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
  }

  /// CPU seconds this thread has used.
  static var threadCPU: Double {
    var now = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
    return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
  }

  /// CPU seconds that all threads of this process have used.
  static var processCPU: Double {
    var now = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now)
    return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
  }
}

/// A file of /proc, all of it: its size, which Foundation goes by, is 0.
func kernelText(_ path: String) -> String {
  (try? Files.read(path)).map { String(decoding: $0, as: UTF8.self) } ?? ""
}

/// A set of measurements.
struct Samples {
  private(set) var values: [Double] = []

  mutating func add(_ value: Double) { values.append(value) }

  /// The `fraction` quantile, by nearest rank; 0 for no samples.
  func quantile(_ fraction: Double) -> Double {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return 0 }
    return sorted[min(sorted.count - 1, Int(Double(sorted.count) * fraction))]
  }

  var median: Double { quantile(0.5) }
}

/// One line of the report: ours, the peer's, their ratio and the bound on it.
struct Comparison: Codable {
  let name: String
  let unit: String
  let ours: Double
  let peer: Double?
  let ratio: Double?
  /// What the ratio (or, without a peer, the value) must not pass.
  let bound: Double?
  let higherIsBetter: Bool
  /// Why there is no peer.
  let note: String?

  init(
    _ name: String, unit: String, ours: Double, peer: Double? = nil, bound: Double? = nil,
    higherIsBetter: Bool = false, note: String? = nil
  ) {
    self.name = name
    self.unit = unit
    self.ours = ours
    self.peer = peer
    ratio = peer.flatMap { $0 > 0 ? ours / $0 : nil }
    self.bound = bound
    self.higherIsBetter = higherIsBetter
    self.note = note
  }

  var met: Bool? {
    guard let bound else { return nil }
    let value = ratio ?? ours
    return higherIsBetter ? value >= bound : value <= bound
  }

  var line: String {
    func number(_ value: Double) -> String { String(format: value < 10 ? "%.3f" : "%.1f", value) }
    var text = "  " + name.padding(toLength: 58, withPad: " ", startingAt: 0)
    text += " \(number(ours)) \(unit)"
    if let peer { text += "   peer \(number(peer)) \(unit)" }
    if let ratio { text += "   ratio " + String(format: "%.3f", ratio) }
    if let bound, let met {
      text += "   (\(higherIsBetter ? "at least" : "at most") \(number(bound)): "
      text += met ? "met)" : "NOT met)"
    }
    if let note { text += "   (\(note))" }
    return text
  }
}
