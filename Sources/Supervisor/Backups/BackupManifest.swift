import Brokering
import FoundationEssentials
import LinuxSystem

/// What a backup or an archive says about itself: a file beside what it describes.
///
/// Every path in it is relative to the state directory that it was made from. What comes
/// from elsewhere may be hostile, so that nothing in it is used before `check`.
struct BackupManifest: Codable, Hashable, Sendable, ArchiveManifest {
  static let fileName = "backup.json"
  /// Before 2, memory was always whole. What has whole memory is still of 1.
  static let version = 2

  /// One image of the disk; the first is based on nothing, each other on the one before.
  struct Layer: Codable, Hashable, Sendable {
    let path: String
    let isRaw: Bool
  }

  struct File: Codable, Hashable, Sendable {
    let path: String
    let size: UInt64
    /// What it takes on a disk, without its holes. Earlier versions did not say.
    var stored: UInt64?
  }

  let version: Int
  let desktop: DesktopID
  let owner: UserName?
  /// As it was then.
  let pool: Pool
  let created: Timestamp
  let isQuiesced: Bool
  let layers: [Layer]
  /// Size and time of the last change of the first layer, if that is the library's.
  let imageStamp: String?
  let memory: String?
  /// Those that the memory needs; the first is whole, each other is what differs from the one
  /// before.
  let memoryBases: [String]?
  let variables: String?
  /// Of the host's processor, which the memory depends on.
  let processor: String
  /// All of them, but for this one.
  let files: [File]

  var shape: DesktopShape { DesktopShape(of: pool) }

  var contents: BackupContents {
    BackupContents(desktop: desktop, owner: owner, hasDisk: !layers.isEmpty)
  }

  var byteCount: UInt64 {
    files.reduce(0) { $0.addingReportingOverflow($1.size).partialValue }
  }

  /// Where it is, relative to the state directory.
  static func path(of desktop: DesktopID) -> String { "desktops/\(desktop)/\(fileName)" }

  var path: String { Self.path(of: desktop) }

  /// The file of the library that the disk is based on.
  var image: String? {
    layers.first.flatMap { $0.isRaw && $0.path.hasPrefix("images/") ? $0.path : nil }
  }

  init(parsing bytes: [UInt8]) throws(BrokerError) {
    self = try Self.decoded(bytes)
    try check()
  }

  init(
    of subject: BackupSubject, _ record: SnapshotRecord, in directory: DesktopDirectory,
    stateRoot: String
  ) throws {
    let shelf = SnapshotShelf(directory: directory)
    func relative(_ path: String) throws(BrokerError) -> String {
      guard path.hasPrefix(stateRoot + "/") else {
        throw BrokerError(
          .storage,
          "\(path), which the disk of '\(directory.desktop)' needs, is not in \(stateRoot)")
      }
      return String(path.dropFirst(stateRoot.count + 1))
    }
    desktop = subject.desktop
    owner = subject.owner
    pool = subject.pool
    created = record.created
    isQuiesced = record.isQuiesced
    let chain = try Self.chain(from: record.layer, in: directory.state)
    layers = try chain.map { path throws(BrokerError) in
      Layer(path: try relative(path), isRaw: !path.hasSuffix(".qcow2"))
    }
    imageStamp = chain.first.flatMap {
      $0.hasPrefix(directory.images + "/") ? TemplateRecord.stamp(of: $0) : nil
    }
    memory = try record.memory.map { name throws(BrokerError) in try relative(shelf.memory(name)) }
    let bases = try record.bases.map { name throws(BrokerError) in
      try relative(shelf.memory(name))
    }
    memoryBases = bases.isEmpty ? nil : bases
    version = bases.isEmpty ? 1 : Self.version
    variables = record.hasVariables ? try relative(shelf.variables(record.name)) : nil
    processor = TemplateRecord.hostProcessor
    files = try (layers.map(\.path) + bases + [memory, variables].compactMap { $0 }).map { path in
      try File(path, of: "\(stateRoot)/\(path)")
    }
  }

  /// A layer and all it is based on, the last first.
  private static func chain(from number: UInt64?, in directory: String) throws -> [String] {
    guard let number else { return [] }
    var paths = ["\(directory)/\(DiskLayers.file(number))"]
    while let last = paths.last, last.hasSuffix(".qcow2"),
      let name = try Qcow2BackingName.read(last)
    {
      let place = last[..<(last.lastIndex(of: "/") ?? last.startIndex)]
      paths.append(name.hasPrefix("/") ? name : "\(place)/\(name)")
      guard paths.count <= BackupManifest.mostLayers else {
        throw BrokerError(.storage, "the disk in \(directory) is based on too many images")
      }
    }
    return paths.reversed()
  }

  // MARK: Checks

  /// As a VMM takes them.
  static let mostLayers = 64
  static let mostBases = 63

  private func check() throws(BrokerError) {
    func refuse(_ reason: String) throws(BrokerError) -> Never {
      throw BrokerError(.invalid, "what it says about itself is wrong: \(reason)")
    }
    guard (try? DesktopID(checking: desktop.rawValue)) != nil else { try refuse("its desktop") }
    do { try pool.check() } catch { try refuse("its pool: \(error)") }
    let paths = files.map(\.path)
    let bases = memoryBases ?? []
    let needed = layers.map(\.path) + bases + [memory, variables].compactMap { $0 }
    guard Set(paths).count == paths.count, Set(needed).count == needed.count,
      Set(paths) == Set(needed), layers.count <= Self.mostLayers, bases.count <= Self.mostBases
    else { try refuse("its list of files") }
    guard (version == 1) == bases.isEmpty, bases.isEmpty || memory != nil,
      bases.isEmpty || (bases + [memory ?? ""]).allSatisfy({ memoryName(in: $0) != nil })
    else { try refuse("its memory") }
    for path in paths where !Self.isPath(path) || path == self.path {
      try refuse("the path '\(path)'")
    }
    for (index, layer) in layers.enumerated() where layer.isRaw && index > 0 {
      try refuse("'\(layer.path)' is based on something")
    }
    guard files.allSatisfy({ $0.size < 1 << 46 }) else { try refuse("a file's size") }
  }

  /// A memory that others need, or that needs others, is found by its name.
  func memoryName(in path: String) -> String? {
    let place = "desktops/\(desktop)/"
    guard path.hasPrefix(place) else { return nil }
    let name = String(path.dropFirst(place.count))
    guard let memory = SnapshotShelf.memoryName(in: name),
      name == SnapshotShelf.memoryFile(memory)
    else { return nil }
    return memory
  }

  /// Plain names under one of the directories that desktops' files are in.
  static func isPath(_ path: String) -> Bool {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 3, ["desktops", "images", "templates"].contains(parts[0]) else {
      return false
    }
    return parts.allSatisfy { part in
      !part.isEmpty && part.first != "." && part.utf8.count <= 128
        && part.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "@._-".contains($0)) }
    }
  }

  /// The library's image that the disk is based on, if it is the same one: to be left out.
  func presentImage(in stateRoot: String) -> String? {
    guard let image, let imageStamp else { return nil }
    return TemplateRecord.stamp(of: "\(stateRoot)/\(image)") == imageStamp ? image : nil
  }

  /// Whether a guest goes on from the memory in such a pool; otherwise why not.
  func obstacle(to pool: Pool) -> String? {
    if let difference = DesktopShape(of: pool).difference(from: shape) {
      return "pool '\(pool.name)' has \(difference) in the backup"
    }
    return processor == TemplateRecord.hostProcessor ? nil : "the host has another processor"
  }
}

extension BackupManifest.File {
  /// - Parameter place: where it is now.
  init(_ path: String, of place: String) throws(SystemError) {
    let file = try FileDescriptor.open(place)
    self.init(
      path: path, size: try file.size(),
      stored: try file.storedRanges().reduce(0) { $0 + UInt64($1.count) })
  }
}
