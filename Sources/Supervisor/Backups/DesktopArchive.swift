import Brokering
import Glibc
import LinuxSystem

/// One desktop as one file: a compressed tar of what a backup holds, what it says about
/// itself first. One from elsewhere may be hostile: what is in it is compared with what it
/// says before and after it is unpacked.
struct DesktopArchive: Sendable {
  static let program = "/usr/bin/tar"
  static let compressor = "/usr/bin/zstd"
  private static let mostMembers = BackupManifest.mostLayers + 3
  private static let largestManifest: UInt64 = 1 << 20

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
  }

  /// Blocks. Afterwards it is whole, or nothing is left of it.
  ///
  /// - Returns: its size.
  func write(_ manifest: BackupManifest, from root: String) throws -> UInt64 {
    do {
      // It holds all that a user has.
      try Files.replace(draft, with: [], permissions: 0o600)
      _ = try tar(
        [
          "--create", "--zstd", "--format=gnu", "--sparse", "--no-recursion", "--numeric-owner",
          "--owner=0", "--group=0", "--mode=600", "--hard-dereference", "--file=\(draft)", "--",
          manifest.path,
        ] + manifest.files.map(\.path), in: root)
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
  func check() throws -> BackupManifest {
    let members = try members()
    guard let first = members.first, first.size <= Self.largestManifest,
      first.path.hasSuffix("/" + BackupManifest.fileName)
    else { throw refusal("it does not begin with what it says about itself") }
    let bytes = try tar(
      ["--extract", "--to-stdout", "--occurrence=1", "--file=\(path)", "--", first.path], in: "/")
    let manifest = try BackupManifest(parsing: bytes)
    guard first.path == manifest.path else { throw refusal("it says that it is something else") }
    let said = Set(manifest.files.map { Member(path: $0.path, size: $0.size) })
    guard members.count == said.count + 1, Set(members.dropFirst()) == said else {
      throw refusal("other files are in it than it says")
    }
    return manifest
  }

  /// Unpacks into an empty directory. Blocks.
  func extract(_ manifest: BackupManifest, to root: String) throws {
    var status = statvfs()
    // SAFETY: statvfs fills the structure given or fails.
    if statvfs(root, &status) == 0,
      UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize)).partialValue
        < UInt64(bitPattern: Int64(clamping: manifest.byteCount)) / 64
    {
      throw BrokerError(.storage, "there is no room for \(path)")
    }
    _ = try tar(
      [
        "--extract", "--no-same-owner", "--no-same-permissions", "--keep-old-files",
        "--file=\(path)", "--",
      ] + manifest.files.map(\.path), in: root)
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
      ], in: "/"
    ) { line in
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
    }
    if let strange { throw refusal("'\(strange)' is none of its files") }
    return members
  }

  private func refusal(_ reason: String) -> BrokerError {
    BrokerError(.invalid, "\(path) is no desktop that Carrel exported: \(reason)")
  }

  /// - Parameter follow: given each line; with `false` it ends.
  private func tar(
    _ arguments: [String], in directory: String, _ follow: ([UInt8]) -> Bool = { _ in true }
  ) throws -> [UInt8] {
    try task.checkWanted()
    var process: ProcessHandle?
    var isEnough = false
    defer { task.setProcess(nil) }
    let said = try ToolOutput(
      of: Self.program, arguments, .init(directory: directory),
      started: {
        process = $0
        task.setProcess($0)
      },
      follow: { line in
        guard !isEnough, !follow(line) else { return }
        isEnough = true
        try? process?.send(.kill)
      })
    if said.exit == .exited(0) || isEnough { return said.output }
    try task.checkWanted()
    let text = String(decoding: said.errors, as: UTF8.self)
    guard !text.contains("No space left on device") else {
      throw BrokerError(.storage, "there is no room in \(directory) or for \(path)")
    }
    throw BrokerError(.invalid, "tar failed: \(ImageTool.lastLine(of: said.errors))")
  }
}
