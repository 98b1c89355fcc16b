import Brokering
import FoundationEssentials
import LinuxSystem

/// What the supervisor writes before it starts a VMM, so that a later one knows what
/// the survivor is.
struct LaunchRecord: Codable, Hashable, Sendable {
  var version = 1
  let generation: UInt64
}

/// `vmm.json`, as `carrel-vmm` writes it.
struct VMMIdentity: Codable, Hashable, Sendable {
  let pid: Int32
  /// Field 22 of /proc/PID/stat.
  let startTime: UInt64
}

/// `exit.json`, as `carrel-vmm` writes it when it ends by itself.
struct ExitRecord: Codable, Hashable, Sendable {
  let reason: String
  let detail: String?

  var exitReason: ExitReason {
    switch reason {
    case "guest-shutdown": .guestShutdown
    case "quit": .stopped
    default: .crashed(detail.flatMap { $0.isEmpty ? nil : "\(reason): \($0)" } ?? reason)
    }
  }
}

/// Files with one record in JSON.
enum Records {
  /// None is longer.
  private static let limit = 64 << 10

  /// The record in a file; `nil` when it is not there or not whole.
  static func load<Record: Decodable>(_ type: Record.Type, from path: String) -> Record? {
    guard let bytes = try? Files.read(path, limit: limit) else { return nil }
    return try? JSONDecoder().decode(type, from: Data(bytes))
  }

  static func store(_ record: some Encodable, at path: String) throws {
    try Files.replace(path, with: try JSONEncoder().encode(record))
  }
}

extension DesktopDirectory {
  func load<Record: Decodable>(_ type: Record.Type, from path: String) -> Record? {
    Records.load(type, from: path)
  }

  func store(_ record: some Encodable, at path: String) throws {
    try Records.store(record, at: path)
  }

  /// Whether a VMM holds its lock here.
  var isLocked: Bool {
    guard let file = try? FileDescriptor.open(lock, .writable) else { return false }
    do {
      try file.lock(exclusive: true)
      return false
    } catch {
      return error.kind == .wouldBlock
    }
  }
}
