import Brokering
import FoundationEssentials
import Glibc
import LinuxSystem

/// What an archive says about itself: a file of it, which is the first.
protocol ArchiveManifest: Codable, Sendable {
  /// Of its newest format.
  static var version: Int { get }
  /// Where that file is.
  var path: String { get }
  /// All others.
  var files: [BackupManifest.File] { get }
}

private struct ManifestHead: Decodable {
  let version: Int
}

extension ArchiveManifest {
  /// Of this version's format or an earlier one, and not looked at any further.
  static func decoded(_ bytes: [UInt8]) throws(BrokerError) -> Self {
    do {
      // What a newer version writes may look otherwise.
      let head = try JSONDecoder().decode(ManifestHead.self, from: Data(bytes))
      guard 1...version ~= head.version else {
        throw BrokerError(
          .invalid,
          "it is of format \(head.version), which this Carrel does not know: use a newer one")
      }
      return try JSONDecoder().decode(Self.self, from: Data(bytes))
    } catch let error as BrokerError {
      throw error
    } catch {
      throw BrokerError(.invalid, "what it says about itself cannot be read", cause: error)
    }
  }

  /// That all files are there and are files. Blocks.
  ///
  /// - Parameter excluded: one that was left where it is.
  func checkFiles(in root: String, without excluded: String? = nil) throws {
    for file in files where file.path != excluded {
      // SAFETY: stat is a plain C structure that the call fills or leaves.
      var status = stat()
      guard lstat("\(root)/\(file.path)", &status) == 0, status.st_mode & S_IFMT == S_IFREG,
        status.st_nlink == 1, UInt64(clamping: status.st_size) == file.size
      else {
        throw BrokerError(.storage, "'\(file.path)' is not in it as it says")
      }
    }
  }

  /// What its files take once they are unpacked, their holes left out.
  var roomNeeded: UInt64 {
    files.reduce(0) {
      let (sum, overflow) = $0.addingReportingOverflow(min($1.stored ?? $1.size, $1.size))
      return overflow ? .max : sum
    }
  }
}

/// One desktop or template as one file: a compressed tar of what a backup holds, what it says
/// about itself first. One from elsewhere may be hostile: what is in it is compared with what
/// it says before and after it is unpacked.
struct ExportArchive: Sendable {
  static let program = "/usr/bin/tar"
  static let compressor = "/usr/bin/zstd"
  private static let mostMembers = BackupManifest.mostLayers + BackupManifest.mostBases + 3
  private static let largestManifest: UInt64 = 1 << 20

  enum Contents: Sendable {
    case desktop(BackupManifest)
    case template(TemplateManifest)
  }

  let path: String
  let task: BackupTask

  init(path: String, task: BackupTask) throws(BrokerError) {
    guard path.hasPrefix("/") else {
      throw BrokerError(
        .invalid, "'\(path)' is not an absolute path: give the whole path on carreld's host")
    }
    self.path = path
    self.task = task
  }

  private var draft: String { path + ".part" }

  func checkFree() throws(BrokerError) {
    guard !Files.exists(path) else {
      throw BrokerError(.exists, "\(path) is there already: name another file")
    }
    let parent = path[..<(path.lastIndex(of: "/") ?? path.startIndex)]
    guard Files.isDirectory(parent.isEmpty ? "/" : String(parent)) else {
      throw BrokerError(
        .invalid,
        "there is no directory \(parent) on carreld's host for \(path): make it, or name a file in "
          + "one that is there")
    }
  }

  /// Blocks. Afterwards it is whole, or nothing is left of it.
  ///
  /// - Returns: its size.
  func write(_ manifest: some ArchiveManifest, from root: String) throws -> UInt64 {
    do {
      // It holds all that a user has.
      try Files.replace(draft, with: [], permissions: 0o600)
      _ = try tar(
        [
          "--create", "--zstd", "--format=gnu", "--sparse", "--no-recursion", "--numeric-owner",
          "--owner=0", "--group=0", "--mode=600", "--dereference", "--hard-dereference",
          "--file=\(draft)",
        ], of: manifest, ["--", manifest.path] + manifest.files.map(\.path), in: root)
      let file = try FileDescriptor.open(draft, .writable)
      try file.synchronize()
      try Files.move(draft, to: path)
      return try file.size()
    } catch {
      try? Files.remove(draft)
      throw error
    }
  }

  // MARK: Reading

  private struct Member: Hashable {
    let path: String
    let size: UInt64
  }

  /// What it says about itself, which is what is in it. Blocks.
  func check() throws -> Contents {
    let members = try members()
    guard let first = members.first, first.size <= Self.largestManifest else {
      throw refusal("it does not begin with what it says about itself")
    }
    switch first.path.split(separator: "/").last.map(String.init) {
    case BackupManifest.fileName:
      let manifest = try BackupManifest(parsing: try bytes(of: first))
      try check(manifest, members)
      return .desktop(manifest)
    case TemplateManifest.fileName:
      let manifest = try TemplateManifest(parsing: try bytes(of: first))
      try check(manifest, members)
      return .template(manifest)
    default:
      throw refusal("it does not begin with what it says about itself")
    }
  }

  private func bytes(of first: Member) throws -> [UInt8] {
    try tar(
      ["--extract", "--to-stdout", "--occurrence=1", "--file=\(path)", "--", first.path], in: "/")
  }

  private func check(_ manifest: some ArchiveManifest, _ members: [Member]) throws {
    guard members.first?.path == manifest.path else {
      throw refusal("it says that it is something else")
    }
    let said = Set(manifest.files.map { Member(path: $0.path, size: $0.size) })
    guard members.count == said.count + 1, Set(members.dropFirst()) == said else {
      throw refusal("other files are in it than it says")
    }
  }

  /// Unpacks into an empty directory. Blocks.
  func extract(_ manifest: some ArchiveManifest, to root: String) throws {
    _ = try tar(
      [
        "--extract", "--no-same-owner", "--no-same-permissions", "--keep-old-files",
        "--file=\(path)",
      ], of: manifest, ["--"] + manifest.files.map(\.path), in: root, holdsToIt: true)
  }

  /// Only plain files with plain names are taken.
  private func members() throws -> [Member] {
    guard let file = try? FileDescriptor.open(path), file.isRegularFile else {
      throw BrokerError(
        .notFound, "file '\(path)' cannot be read: give one on carreld's host")
    }
    var members: [Member] = []
    var strange: String?
    _ = try tar(
      [
        "--list", "--verbose", "--numeric-owner", "--full-time", "--quoting-style=escape",
        "--file=\(path)",
      ], in: "/",
      follow: { line in
        // `-rw------- 0/0  4096 2026-11-30 12:00:00.000000000 desktops/office-1/disk-1.qcow2`
        let text = String(decoding: line, as: UTF8.self)
        let fields = text.split(separator: " ", maxSplits: 5)
        guard members.count < Self.mostMembers, text.hasPrefix("-"), fields.count == 6,
          let size = UInt64(fields[2]), BackupManifest.isPath(String(fields[5]))
        else {
          strange = strange ?? String(text.prefix(200))
          return false
        }
        members.append(Member(path: String(fields[5]), size: size))
        return true
      })
    if let strange { throw refusal("'\(strange)' is none of its files") }
    return members
  }

  private func refusal(_ reason: String) -> BrokerError {
    BrokerError(.invalid, "\(path) is nothing that Carrel exported: \(reason)")
  }

  // MARK: tar

  /// A record of tar's, as it counts them.
  private static let record: UInt64 = 10 << 10
  private static let recordsPerDot: UInt64 = 100

  /// The same for what takes long; tells how much of the files is done.
  ///
  /// - Parameter holdsToIt: no more is taken than the files are said to need, with what tar
  ///   says about each of their pieces. Room was looked for by that.
  private func tar(
    _ options: [String], of manifest: some ArchiveManifest, _ rest: [String],
    in directory: String, holdsToIt: Bool = false
  ) throws -> [UInt8] {
    let total = max(1, manifest.roomNeeded / (Self.record * Self.recordsPerDot))
    let most = holdsToIt ? total + total / 8 + 16 : .max
    var dots: UInt64 = 0
    task.tell(percent: 0)
    let output = try tar(
      options + ["--checkpoint=\(Self.recordsPerDot)", "--checkpoint-action=dot"] + rest,
      in: directory,
      hear: { bytes in
        dots += UInt64(bytes.count)
        task.tell(percent: Int(min(100, dots * 100 / total)))
        return dots <= most
      })
    guard dots <= most else { throw refusal("more is in it than it says") }
    return output
  }

  /// - Parameters:
  ///   - hear: given what it says as it comes; with `false` it ends.
  ///   - follow: given each line; the same.
  private func tar(
    _ arguments: [String], in directory: String, hear: ([UInt8]) -> Bool = { _ in true },
    follow: ([UInt8]) -> Bool = { _ in true }
  ) throws -> [UInt8] {
    try task.checkWanted()
    var process: ProcessHandle?
    var isEnough = false
    func end() {
      isEnough = true
      try? process?.send(.kill)
    }
    defer { task.setProcess(nil) }
    let said = try ToolOutput(
      of: Self.program, arguments, .init(directory: directory),
      started: {
        process = $0
        task.setProcess($0)
      }, hear: { if !isEnough, !hear($0) { end() } },
      follow: { if !isEnough, !follow($0) { end() } })
    if said.exit == .exited(0) || isEnough { return said.output }
    try task.checkWanted()
    let text = String(decoding: said.errors, as: UTF8.self)
    guard !text.contains("No space left on device") else {
      throw BrokerError(.storage, "there is no room in \(directory) or for \(path)")
    }
    let problem = ImageTool.firstLine(of: said.errors)
    guard !arguments.contains("--create") else {
      throw BrokerError(.invalid, "\(path) cannot be written: \(problem)")
    }
    throw BrokerError(
      .invalid,
      "\(path) is not a whole archive of 'carrel export' (\(problem)): copy it again, or export "
        + "it anew")
  }
}
