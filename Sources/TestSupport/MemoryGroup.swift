import Glibc
import LinuxSystem

/// A control group whose processes may have only so much memory together.
public final class MemoryGroup: Sendable {
  public let path: String
  private let isFirstVersion: Bool

  /// Where groups with a limit of memory can be made, if that is so.
  private static let root: (path: String, isFirstVersion: Bool)? = {
    guard geteuid() == 0 else { return nil }
    if Files.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes") {
      return ("/sys/fs/cgroup/memory", true)
    }
    let enabled = (try? Files.read("/sys/fs/cgroup/cgroup.subtree_control")) ?? []
    let names = String(decoding: enabled, as: UTF8.self).split { $0 == " " || $0 == "\n" }
    return names.contains("memory") ? ("/sys/fs/cgroup", false) : nil
  }()

  public static var canBeMade: Bool { root != nil }

  public init(limitMiB: Int) throws {
    guard let root = Self.root else {
      throw SystemError(code: ENOTSUP, "make a control group for memory")
    }
    path = "\(root.path)/carrel-test-\(getpid())-\(MonotonicClock.now)"
    isFirstVersion = root.isFirstVersion
    try Files.makeDirectory(path)
    try write("\(limitMiB << 20)", to: isFirstVersion ? "memory.limit_in_bytes" : "memory.max")
  }

  /// What a shell says to be in it, with what it starts from then on.
  public var entering: String { "echo $$ > \(path)/cgroup.procs" }

  /// How many of its processes the kernel ended for want of memory.
  public func processesEnded() throws -> Int {
    let file = isFirstVersion ? "memory.oom_control" : "memory.events"
    let text = String(decoding: try Files.read("\(path)/\(file)"), as: UTF8.self)
    let line = text.split(separator: "\n").first { $0.hasPrefix("oom_kill ") }
    return line.flatMap { Int($0.dropFirst("oom_kill ".count)) } ?? 0
  }

  /// Once nothing runs in it any more; whether it is gone.
  public func remove() -> Bool { rmdir(path) == 0 || errno == ENOENT }

  private func write(_ text: String, to file: String) throws {
    try FileDescriptor.open("\(path)/\(file)", .writeOnly).writeAll(Array(text.utf8))
  }
}
