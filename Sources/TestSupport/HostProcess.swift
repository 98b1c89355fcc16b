import Foundation
import LinuxSystem

/// A process of this host, whoever started it.
public struct HostProcess: Sendable {
  public let identifier: Int32
  /// Its command line.
  public let words: [String]

  /// Those whose command lines have `text` in one of their words; all when it is empty.
  public static func all(mentioning text: String = "") -> [HostProcess] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { entry in
      guard let identifier = Int32(entry), let bytes = try? Files.read("/proc/\(entry)/cmdline")
      else { return nil }
      let words = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      guard text.isEmpty || words.contains(where: { $0.contains(text) }) else { return nil }
      return HostProcess(identifier: identifier, words: words)
    }
  }

  /// `nil` when it has ended.
  public var handle: ProcessHandle? {
    guard let start = ProcessHandle.startTime(of: identifier) else { return nil }
    return try? ProcessHandle(identifier: identifier, startTime: start)
  }
}
