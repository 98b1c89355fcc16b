import Brokering
import LinuxSystem

/// What is written down about a finished snapshot; it exists when its record does, which is
/// written last.
struct SnapshotRecord: Codable, Hashable, Sendable {
  var version = 1
  let name: SnapshotName
  let created: Timestamp
  let parent: SnapshotName?
  let shape: DesktopShape
  /// The image of the desktop's disk that is as it was then.
  var layer: UInt64?
  /// Names the file with the memory.
  var memory: String?
  /// Those of earlier snapshots that its memory needs.
  var bases: [String] = []
  var isQuiesced = false
  var pauseMicroseconds: Int?
  /// Whether the desktop had UEFI variables.
  var hasVariables = false
  /// Whether it is there for a backup only, which removes it. Nobody else sees it.
  var isBackup: Bool?
}

/// The snapshots in a desktop's directory, and the one owner of their file names.
struct SnapshotShelf: Sendable {
  let directory: DesktopDirectory

  private var prefix: String { directory.state + "/snapshot-" }

  private func record(_ name: SnapshotName) -> String { "\(prefix)\(name).json" }

  func variables(_ name: SnapshotName) -> String { "\(prefix)\(name).variables" }

  /// A snapshot finds those that it needs beside it by this name.
  func memory(_ identifier: String) -> String {
    "\(directory.state)/\(Self.memoryFile(identifier))"
  }

  static func memoryFile(_ identifier: String) -> String { "\(identifier).snapshot" }

  /// Where a VMM notes what a guest needs first that goes on from a saved machine.
  static func workingSet(of path: String) -> String { "\(path).workingset" }

  /// The name of the snapshot that the desktop came from last.
  private var head: String { directory.state + "/snapshot-head" }

  /// Oldest first.
  ///
  /// - Throws: `BrokerError` of kind `storage` for a record that is not what was written.
  func records() throws -> [SnapshotRecord] {
    try DesktopDirectory.names(in: directory.state)
      .filter { $0.hasPrefix("snapshot-") && $0.hasSuffix(".json") }
      .map { name in
        let path = "\(directory.state)/\(name)"
        guard let record = directory.load(SnapshotRecord.self, from: path), record.version == 1,
          path == self.record(record.name)
        else {
          throw BrokerError(
            .storage,
            "\(path) is not what this Carrel wrote: move it away to use the other snapshots of "
              + "desktop '\(directory.desktop)'")
        }
        return record
      }
      .sorted { ($0.created, $0.name) < ($1.created, $1.name) }
  }

  func current() -> SnapshotName? {
    guard let bytes = try? Files.read(head, limit: 64) else { return nil }
    return try? SnapshotName(checking: String(decoding: bytes, as: UTF8.self))
  }

  func setCurrent(_ name: SnapshotName?) throws(SystemError) {
    guard let name else { return try Files.remove(head) }
    try Files.replace(head, with: Array(name.rawValue.utf8))
  }

  /// From now on the snapshot exists.
  func add(_ record: SnapshotRecord) throws {
    if record.isBackup != true { try setCurrent(record.name) }
    try directory.store(record, at: self.record(record.name))
  }

  /// From now on it does not.
  func remove(_ record: SnapshotRecord) throws {
    if current() == record.name { try setCurrent(record.parent) }
    try Files.remove(self.record(record.name), durably: true)
    try Files.remove(variables(record.name))
    try sweep()
  }

  /// The UUID before `.snapshot`; after it there may be more, of what was not finished too.
  static func memoryName(in name: String) -> String? {
    let identifier = name.prefix(36)
    guard name.dropFirst(36).hasPrefix(".snapshot"),
      identifier.allSatisfy({ $0.isHexDigit || $0 == "-" })
    else { return nil }
    return String(identifier)
  }

  /// Removes all, for a desktop that begins anew.
  func removeAll() throws(SystemError) {
    let names = try DesktopDirectory.names(in: directory.state)
    for name in names
    where name.hasPrefix("snapshot-") || Self.memoryName(in: name) != nil
      || Self.isMemoryRecord(name)
    {
      try Files.remove("\(directory.state)/\(name)")
    }
  }

  /// Removes memories and images of disks that no snapshot needs, nor the desktop, nor its next
  /// backup: those of snapshots that were deleted, or never finished. Not while one is being
  /// taken.
  func sweep() throws {
    let records = try records()
    let needed = Set(records.flatMap { $0.bases + [$0.memory].compactMap { $0 } })
      .union(try memoriesInUse())
    for name in try DesktopDirectory.names(in: directory.state) {
      let path = "\(directory.state)/\(name)"
      if let memory = Self.memoryName(in: name), !needed.contains(memory) {
        try Files.remove(path)
      } else if name.hasPrefix("snapshot-"), name.hasSuffix(".variables"),
        !records.contains(where: { variables($0.name) == path })
      {
        try Files.remove(path)
      }
    }
    let disks = try DiskLayers(in: directory.state)
    let layers = Set(records.compactMap(\.layer)).union([disks.top?.number].compactMap { $0 })
    var kept: Set<DiskLayers.Layer> = []
    for layer in disks.layers where layers.contains(layer.number) {
      kept.formUnion(try disks.chain(from: layer))
    }
    for layer in disks.layers.reversed() where !kept.contains(layer) {
      try Files.remove(disks.path(layer))
    }
  }
}

extension DesktopSnapshot {
  init(_ record: SnapshotRecord, in shelf: SnapshotShelf) {
    self.init(
      name: record.name, state: .ready, parent: record.parent, created: record.created,
      shape: record.shape)
    hasMemory = record.memory != nil
    isQuiesced = record.isQuiesced
    isDifferential = !record.bases.isEmpty
    pauseMicroseconds = record.pauseMicroseconds
    memoryBytes =
      record.memory.flatMap { (try? FileDescriptor.open(shelf.memory($0)))?.storedBytes } ?? 0
    isCurrent = shelf.current() == record.name
  }
}
