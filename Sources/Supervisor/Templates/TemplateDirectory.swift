import Brokering
import Glibc
import LinuxSystem

/// One generation of a pool's template on disk, and the one owner of the file names there.
///
/// It exists when its directory has its final name, which is given last; from then on nothing
/// is added to it but that it is retired.
struct TemplateDirectory: Hashable, Sendable {
  let pool: PoolName
  let generation: UInt64
  private let root: String
  private let runtimeRoot: String

  init(pool: PoolName, generation: UInt64, stateRoot: String, runtimeRoot: String) {
    self.pool = pool
    self.generation = generation
    root = Self.root(stateRoot)
    self.runtimeRoot = runtimeRoot
  }

  static func root(_ stateRoot: String) -> String { stateRoot + "/templates" }

  /// `office@3`; names of pools have no such sign.
  var name: String { "\(pool)@\(generation)" }
  var path: String { "\(root)/\(name)" }
  var draft: String { path + ".new" }
  var record: String { path + "/template.json" }
  var variables: String { path + "/variables.fd" }
  /// Where its process takes requests, and what it says.
  var socket: String { "\(runtimeRoot)/\(name).socket" }
  var log: String { "\(runtimeRoot)/\(name).log" }
  /// Who its process is.
  var process: String { "\(runtimeRoot)/\(name).json" }

  /// Every generation there is.
  static func all(
    stateRoot: String, runtimeRoot: String
  ) throws(SystemError) -> [TemplateDirectory] {
    try DesktopDirectory.names(in: root(stateRoot)).compactMap { name in
      let parts = name.split(separator: "@")
      guard parts.count == 2, let pool = try? PoolName(checking: String(parts[0])),
        let generation = UInt64(parts[1])
      else { return nil }
      return TemplateDirectory(
        pool: pool, generation: generation, stateRoot: stateRoot, runtimeRoot: runtimeRoot)
    }
    .sorted { ($0.pool, $0.generation) < ($1.pool, $1.generation) }
  }

  /// Makes the directory to put things in.
  func create() throws(SystemError) {
    try Files.makeDirectory(root)
    try DesktopDirectory.removeTree(draft)
    try Files.makeDirectory(draft)
  }

  /// Removes what was put in it, when nothing comes of it.
  func abandon() throws(SystemError) { try DesktopDirectory.removeTree(draft) }

  /// From now on it exists.
  func finish() throws(SystemError) {
    try FileDescriptor.open(draft, [.directory]).synchronize()
    guard rename(draft, path) == 0 else {
      throw SystemError(code: errno, "put \(path) in place")
    }
    try FileDescriptor.open(root, [.directory]).synchronize()
  }

  /// From now on it does not.
  ///
  /// - Parameter isUnneeded: asked when nobody can begin to need it any more.
  /// - Returns: `false` when somebody had begun before, and it is there again.
  func delete(_ isUnneeded: () throws -> Bool) throws -> Bool {
    let gone = path + ".gone"
    try DesktopDirectory.removeTree(gone)
    guard rename(path, gone) == 0 || errno == ENOENT else {
      throw SystemError(code: errno, "take \(path) away")
    }
    guard try isUnneeded() else {
      guard rename(gone, path) == 0 else {
        throw SystemError(code: errno, "put \(path) back, which is \(gone) now")
      }
      return false
    }
    try DesktopDirectory.removeTree(gone)
    for file in [socket, log, process] { try Files.remove(file) }
    return true
  }

  /// Removes what a `carreld` that was killed left half made or half deleted.
  static func removeRemains(stateRoot: String) throws(SystemError) {
    for name in try DesktopDirectory.names(in: root(stateRoot))
    where name.hasSuffix(".new") || name.hasSuffix(".gone") {
      try DesktopDirectory.removeTree("\(root(stateRoot))/\(name)")
    }
  }
}

/// What is written down about a template.
struct TemplateRecord: Codable, Hashable, Sendable {
  var version = 1
  let machine: TemplateMachine
  let readiness: TemplateReadiness
  let created: Timestamp
  let sign: String
  /// Of the image's file, which may be another under the same name.
  let imageStamp: String
  /// Of the host's processor.
  let processor: String
  /// The name of the file with its memory.
  let memory: String
  /// That of its disk's image, and whether it is raw.
  let disk: String?
  let hasVariables: Bool

  /// The stamp of an image that is not there.
  static let noImage = "gone"

  /// Size and time of the last change of a file.
  static func stamp(of path: String) -> String {
    // SAFETY: stat is a plain C structure that the call fills or leaves.
    var status = stat()
    guard stat(path, &status) == 0 else { return noImage }
    return "\(status.st_size) \(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)"
  }

  /// What a saved machine depends on of the processor.
  static let hostProcessor: String = {
    let text = (try? Files.read("/proc/cpuinfo", limit: 4 << 20)).map {
      String(decoding: $0, as: UTF8.self)
    }
    let lines = (text ?? "").split(separator: "\n").prefix { !$0.isEmpty }
    return lines.filter { $0.hasPrefix("model name") || $0.hasPrefix("flags") }
      .joined(separator: "\n")
  }()

  /// Why desktops of `machine` cannot be cloned from it; `nil` when they can.
  func staleness(for machine: TemplateMachine) -> String? {
    if machine.image != self.machine.image { return "the pool has another image" }
    if machine != self.machine { return "the pool has other hardware" }
    if imageStamp == Self.noImage || Self.stamp(of: machine.image.path) != imageStamp {
      return "the image was changed"
    }
    if Self.hostProcessor != processor { return "the host has another processor" }
    return nil
  }
}

extension TemplateDirectory {
  /// What was written; `nil` when it is not there, or not what this version writes.
  func load() -> TemplateRecord? {
    let found = Records.load(TemplateRecord.self, from: record)
    return found?.version == 1 ? found : nil
  }

  func memory(_ record: TemplateRecord) -> String { "\(path)/\(record.memory)" }

  /// The image that clones' disks are based on.
  func disk(_ record: TemplateRecord) -> (path: String, format: DesktopDisk.Format)? {
    record.disk.map { ("\(path)/\($0)", $0.hasSuffix(".raw") ? .raw : .qcow2) }
  }
}
