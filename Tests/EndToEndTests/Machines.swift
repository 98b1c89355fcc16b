import Foundation
import LinuxSystem
import TestSupport

extension Site {
  /// The VMMs that run for this site, by desktop, whatever its records say.
  var machines: [String: ProcessHandle] {
    var found: [String: ProcessHandle] = [:]
    for program in HostProcess.all(mentioning: directory.path + "/") {
      guard let name = program.words.firstIndex(of: "--name"), name + 1 < program.words.count,
        program.words.first?.hasSuffix("/carrel-vmm") == true,
        let handle = program.handle, handle.isRunning
      else { continue }
      found[program.words[name + 1]] = handle
    }
    return found
  }

  /// Process numbers of the VMMs.
  var machineNumbers: [String: Int32] { machines.mapValues(\.identifier) }

  /// Display processes that carreld has.
  var displays: [ProcessHandle] {
    let daemon = daemonNumber
    return HostProcess.all(mentioning: "carrel-display").compactMap { program in
      Self.parent(of: program.identifier) == daemon ? program.handle : nil
    }
  }

  /// The command lines of the processes that one has started.
  func children(of process: Int32) -> [[String]] {
    HostProcess.all().filter { Self.parent(of: $0.identifier) == process }.map(\.words)
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
}
