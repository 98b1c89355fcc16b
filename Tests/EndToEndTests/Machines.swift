import Foundation
import LinuxSystem

extension Site {
  /// The VMMs that run for this site, by desktop, whatever its records say.
  var machines: [String: ProcessHandle] {
    var found: [String: ProcessHandle] = [:]
    for words in Self.commandLines(mentioning: directory.path + "/") {
      guard let name = words.line.firstIndex(of: "--name"), name + 1 < words.line.count,
        words.line.first?.hasSuffix("/carrel-vmm") == true,
        let start = ProcessHandle.startTime(of: words.process),
        let handle = try? ProcessHandle(identifier: words.process, startTime: start),
        handle.isRunning
      else { continue }
      found[words.line[name + 1]] = handle
    }
    return found
  }

  /// Process numbers of the VMMs.
  var machineNumbers: [String: Int32] { machines.mapValues(\.identifier) }

  /// Display processes that carreld has.
  var displays: [ProcessHandle] {
    let daemon = daemonNumber
    return Self.commandLines(mentioning: "carrel-display").compactMap { words in
      guard Self.parent(of: words.process) == daemon,
        let start = ProcessHandle.startTime(of: words.process)
      else { return nil }
      return try? ProcessHandle(identifier: words.process, startTime: start)
    }
  }

  /// The command lines of the processes that one has started.
  func children(of process: Int32) -> [[String]] {
    Self.commandLines(mentioning: "").filter { Self.parent(of: $0.process) == process }.map(\.line)
  }

  /// Names of the directories that desktops have.
  func desktopDirectories() -> [String] {
    [state, runtime].flatMap {
      (try? FileManager.default.contentsOfDirectory(atPath: $0 + "/desktops")) ?? []
    }
  }

  private static func parent(of process: Int32) -> Int32? {
    guard let bytes = try? Files.read("/proc/\(process)/stat") else { return nil }
    let text = String(decoding: bytes, as: UTF8.self)
    guard let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: end)...].split(separator: " ")
    return fields.count > 1 ? Int32(fields[1]) : nil
  }

  private static func commandLines(
    mentioning text: String
  ) -> [(process: Int32, line: [String])] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { entry in
      guard let process = Int32(entry), let bytes = try? Files.read("/proc/\(entry)/cmdline")
      else { return nil }
      let line = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      return text.isEmpty || line.contains { $0.contains(text) } ? (process, line) : nil
    }
  }
}
