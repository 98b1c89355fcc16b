import LinuxSystem
import QMP

/// The directory through which a supervisor finds this process again, and learns
/// how it ended.
final class RuntimeDirectory {
  private let path: String
  private let lock: FileDescriptor
  private let isDurable: Bool

  /// Takes the directory: locks `vmm.lock` for the life of the process, forgets an
  /// earlier `exit.json`, writes `vmm.json`.
  ///
  /// - Parameter isDurable: whether what it holds has to outlive a crash of the host.
  init(_ path: String, name: String, isDurable: Bool = true) throws {
    self.path = path
    self.isDurable = isDurable
    try Files.makeDirectory(path)
    lock = try FileDescriptor.open(path + "/vmm.lock", [.writable, .create])
    do {
      try lock.lock(exclusive: true)
    } catch {
      throw RuntimeDirectoryInUse(path: path)
    }
    try Files.remove(path + "/exit.json")
    let (process, startTime) = ProcessHandle.current
    try write(
      "vmm.json",
      [
        "pid": .integer(Int64(process)), "startTime": .integer(Int64(clamping: startTime)),
        "name": .string(name),
      ])
  }

  /// Leaves word why the process ends.
  func recordExit(_ reason: String, detail: String) {
    do {
      try write(
        "exit.json",
        [
          "reason": .string(reason), "detail": .string(detail),
          "time": .integer(WallClock.now.seconds),
        ])
    } catch {
      Diagnostics.report("\(error)")
    }
  }

  private func write(_ file: String, _ members: [String: JSON]) throws(SystemError) {
    try Files.replace(
      "\(path)/\(file)", with: JSON.object(members).encoded + [0x0A], durably: isDurable)
  }
}

struct RuntimeDirectoryInUse: Error, CustomStringConvertible {
  let path: String

  var description: String {
    "another carrel-vmm runs with runtime directory \(path); give each guest its own"
  }
}
