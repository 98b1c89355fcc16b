import Brokering
import FoundationEssentials
import Glibc
import LinuxSystem

/// A repository as Debian's `restic` keeps it: encrypted, compressed, and each piece of data
/// in it once. Its password is given by a descriptor: it stands on no command line and in no
/// environment.
struct Restic: Sendable {
  static let program = "/usr/bin/restic"
  /// What opens repositories that were made without a key. It protects nothing.
  static let commonKey = Array("carrel".utf8)
  private static let keyDescriptor: Int32 = 3
  /// How a backup ends that lacks files which could not be read.
  private static let incomplete = ChildProcess.Exit.exited(3)

  let repository: BackupRepository
  let task: BackupTask

  /// What it says while it works, of which only some is in each line.
  private struct Line: Decodable {
    let messageType: String?
    let percentDone: Double?
    let dataAdded: UInt64?
    let snapshotId: String?
  }

  // MARK: The repository

  /// Makes the repository if there is none, and takes away what those left that died: locks,
  /// and data that is in no index yet, which the next backup would write again.
  func prepare() throws {
    try checkIsDirectory()
    guard !Files.exists(repository.path + "/config") else {
      _ = try run(["unlock"])
      try findUnfinished()
      return
    }
    let known = ["data", "index", "keys", "locks", "snapshots"]
    guard try DesktopDirectory.names(in: repository.path).allSatisfy(known.contains) else {
      throw BrokerError(
        .conflict,
        "\(repository.path) has other things in it than backups: name an empty directory")
    }
    try Files.makeDirectory(repository.path)
    _ = try run(["init"])
  }

  /// Begins the name of a file that is in the repository while a backup is made.
  private static let unfinished = "carrel-unfinished-"

  private func findUnfinished() throws {
    let marks = try DesktopDirectory.names(in: repository.path)
      .filter { $0.hasPrefix(Self.unfinished) }
    guard !marks.isEmpty else { return }
    task.tell("looking for what an earlier backup left")
    do {
      _ = try run(["rebuild-index"])
    } catch let error as BrokerError where [.conflict, .storage].contains(error.kind) {
      // Another backup is being made, or there is no room: it is found later.
      return
    }
    for mark in marks { try Files.remove("\(repository.path)/\(mark)") }
  }

  /// What is not there yet may become one.
  private func checkIsDirectory() throws(BrokerError) {
    guard !Files.exists(repository.path) || Files.isDirectory(repository.path) else {
      throw BrokerError(
        .invalid, "\(repository.path) is a file, and backups are in a directory: name one")
    }
  }

  func checkPresence() throws {
    try checkIsDirectory()
    guard Files.exists(repository.path + "/config") else {
      throw BrokerError(
        .notFound, "there are no backups in \(repository.path): make one with 'carrel backup run'")
    }
  }

  func backups() throws -> [Backup] {
    struct Snapshot: Decodable {
      let shortId: String
      let tags: [String]?
    }
    try checkPresence()
    let found: [Snapshot] = try decode(
      try run(["snapshots", "--json", "--no-lock", "--tag", "carrel"]))
    return found.compactMap { Backup($0.shortId, tags: $0.tags ?? []) }
      .sorted { ($0.created, $0.id) < ($1.created, $1.id) }
  }

  // MARK: Backups

  /// - Parameter parent: what files are compared with; those that are as they were then are
  ///   not read.
  func backUp(
    _ manifest: BackupManifest, in root: String, parent: String?
  ) throws -> (id: String, addedBytes: UInt64) {
    let paths = [manifest.path] + manifest.files.map(\.path)
    let mark = "\(repository.path)/\(Self.unfinished)\(UUID().uuidString.lowercased())"
    try Files.replace(mark, with: [])
    var summary: Line?
    var arguments = ["backup", "--json", "--tag", Backup.tags(of: manifest).joined(separator: ",")]
    if let parent { arguments += ["--parent", parent] }
    let (exit, _) = try start(arguments + ["--"] + paths, in: root) { line in
      guard let line: Line = try? decode(line) else { return }
      if let done = line.percentDone { task.tell(percent: Int(done * 100)) }
      if line.messageType == "summary" { summary = line }
    }
    guard exit == .exited(0), let summary, let id = summary.snapshotId else {
      if exit == Self.incomplete, let id = summary?.snapshotId { _ = try? run(["forget", id]) }
      throw BrokerError(
        .conflict, "files of desktop '\(manifest.desktop)' went away meanwhile: run it again")
    }
    try Files.remove(mark)
    return (id, summary.dataAdded ?? 0)
  }

  /// What a backup says about itself.
  func manifest(of backup: Backup) throws -> BackupManifest {
    let bytes = try run([
      "dump", "--no-lock", backup.id, "/" + BackupManifest.path(of: backup.desktop),
    ])
    return try BackupManifest(parsing: bytes)
  }

  /// Files' paths and sizes.
  func files(of backup: Backup) throws -> [String: UInt64] {
    struct Node: Decodable {
      let type: String?
      let path: String?
      let size: UInt64?
    }
    let lines = try run(["ls", "--json", "--no-lock", backup.id]).split(separator: 10)
    var files: [String: UInt64] = [:]
    for line in lines {
      guard let node: Node = try? decode(Array(line)), node.type == "file", let path = node.path
      else { continue }
      files[String(path.dropFirst())] = node.size ?? 0
    }
    return files
  }

  /// - Parameter excluded: a path that stays away.
  func fetch(_ backup: Backup, to root: String, without excluded: String?) throws {
    _ = try run(
      ["restore", "--target", root] + (excluded.map { ["--exclude", "/" + $0] } ?? [])
        + [backup.id])
  }

  func readBack() throws { _ = try run(["check", "--read-data"]) }

  /// - Returns: how many of them went.
  func forget(_ backups: [Backup], _ retention: Retention) throws -> Int {
    struct Group: Decodable {
      struct Item: Decodable { let shortId: String }
      let remove: [Item]?
    }
    guard let first = backups.first else { return 0 }
    var arguments = ["forget", "--json", "--group-by", ""]
    arguments += ["--tag", Backup.tags(first.desktop, first.owner).joined(separator: ",")]
    if let last = retention.last { arguments += ["--keep-last", "\(last)"] }
    if let within = retention.within { arguments += ["--keep-within", within] }
    let groups: [Group] = try decode(try run(arguments))
    return groups.reduce(0) { $0 + ($1.remove?.count ?? 0) }
  }

  /// Frees what no backup needs any more.
  func prune() throws { _ = try run(["prune"]) }

  // MARK: Running it

  private func decode<Value: Decodable>(_ bytes: [UInt8]) throws -> Value {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(Value.self, from: Data(bytes))
  }

  /// - Returns: what it said. Blocks.
  private func run(_ arguments: [String]) throws -> [UInt8] {
    let (exit, output) = try start(arguments, in: "/") { line in
      // `[0:05] 12.34%  3 / 24 packs`
      let text = String(decoding: line.prefix(64), as: UTF8.self)
      if text.hasPrefix("["), let share = text.split(separator: " ").dropFirst().first,
        share.hasSuffix("%"), let percent = Double(share.dropLast())
      {
        task.tell(percent: Int(percent))
      }
    }
    guard exit == .exited(0) else { throw BrokerError(.host, "restic did not end well") }
    return output
  }

  /// Runs it to its end. Blocks.
  ///
  /// - Throws: what it says, when it fails.
  private func start(
    _ arguments: [String], in directory: String, _ follow: ([UInt8]) -> Void
  ) throws -> (ChildProcess.Exit, [UInt8]) {
    try task.checkWanted()
    let setting = ToolOutput.Setting(
      directory: directory, others: [Self.keyDescriptor: try keyDescriptor()],
      environment: ["TZ": "UTC", "RESTIC_PROGRESS_FPS": "2"])
    defer { task.setProcess(nil) }
    let said = try ToolOutput(
      of: Self.program,
      ["-r", repository.path, "--password-file", "/dev/fd/\(Self.keyDescriptor)", "--no-cache"]
        + arguments,
      setting, started: task.setProcess, follow: follow)
    try task.checkWanted()
    guard said.exit == .exited(0) || said.exit == Self.incomplete else {
      throw explain(said.errors, arguments[0])
    }
    return (said.exit, said.output)
  }

  /// Where the password is read from, once.
  private func keyDescriptor() throws -> FileDescriptor {
    let pipe = try Pipe()
    try pipe.input.writeAll(repository.key ?? Self.commonKey)
    return pipe.output
  }

  private func explain(_ errors: [UInt8], _ verb: String) -> BrokerError {
    let text = String(decoding: errors, as: UTF8.self)
    let path = repository.path
    if text.contains("wrong password or no key found") {
      return BrokerError(
        .invalid,
        "the key does not open \(path): give the one that it was made with, or none if there was "
          + "none")
    }
    if text.contains("no space left on device") {
      return BrokerError(
        .storage, "there is no room in \(path): free some; what is there already stays")
    }
    if text.contains("repository is already locked") {
      return BrokerError(.conflict, "another program uses \(path): try again when it has ended")
    }
    let line = ImageTool.lastLine(of: errors)
    if verb == "check" || text.contains("does not match") || text.contains("ciphertext") {
      return BrokerError(
        .storage, "\(path) is damaged: \(line); make a new repository, or see 'man restic'")
    }
    return BrokerError(.host, "restic failed: \(line)")
  }
}

extension Backup {
  fileprivate static func tags(_ desktop: DesktopID, _ owner: UserName?) -> [String] {
    ["carrel", "desktop=\(desktop)", "owner=\(owner?.rawValue ?? "")"]
  }

  static func tags(of manifest: BackupManifest) -> [String] {
    tags(manifest.desktop, manifest.owner) + [
      "pool=\(manifest.pool.name)", "created=\(manifest.created.milliseconds)",
      "bytes=\(manifest.byteCount)", "memory=\(manifest.memory != nil)",
    ]
  }

  /// `nil` for one that is not Carrel's.
  fileprivate init?(_ id: String, tags: [String]) {
    func value(_ name: String) -> String? {
      tags.first { $0.hasPrefix(name + "=") }.map { String($0.dropFirst(name.count + 1)) }
    }
    guard let desktop = value("desktop").flatMap({ try? DesktopID(checking: $0) }) else {
      return nil
    }
    self.init(
      id: id, desktop: desktop, pool: value("pool").flatMap { try? PoolName(checking: $0) },
      owner: value("owner").flatMap { try? UserName(checking: $0) },
      created: Timestamp(milliseconds: value("created").flatMap { Int64($0) } ?? 0),
      bytes: value("bytes").flatMap { UInt64($0) } ?? 0, hasMemory: value("memory") == "true")
  }
}
