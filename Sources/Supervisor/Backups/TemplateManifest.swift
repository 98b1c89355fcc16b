import Brokering
import FoundationEssentials
import Glibc
import LinuxSystem

/// What an archive of a template says about itself: the first file in it.
///
/// Every path in it is as in the state directory that it was made from. What comes from
/// elsewhere may be hostile, so that nothing in it is used before `check`.
struct TemplateManifest: Codable, Hashable, Sendable, ArchiveManifest {
  static let fileName = "export.json"
  static let version = 1
  private static let largestVariables: UInt64 = 64 << 20

  var version = Self.version
  let pool: PoolName
  let generation: UInt64
  let machine: TemplateMachine
  let readiness: TemplateReadiness
  let created: Timestamp
  /// What was seen when it was taken.
  let sign: String
  /// Of the host's processor, which the memory depends on.
  let processor: String
  let memory: String
  let disk: String?
  let variables: String?
  /// What the machine was started from.
  let image: String
  /// All of them, but for this one.
  let files: [BackupManifest.File]

  var path: String { "\(directory)/\(Self.fileName)" }

  private var directory: String { Self.directory(pool, generation) }

  private static func directory(_ pool: PoolName, _ generation: UInt64) -> String {
    "templates/\(pool)@\(generation)"
  }

  // MARK: Making

  /// Puts the files of a generation under `root` as they are in the state directory, where
  /// they stay whatever becomes of it, and says what they are. Blocks.
  init(
    of template: TemplateDirectory, _ record: TemplateRecord, stateRoot: String,
    under root: String
  ) throws {
    let directory = Self.directory(template.pool, template.generation)
    var files: [BackupManifest.File] = []
    func keep(_ place: String, as path: String) throws -> String {
      let kept = "\(root)/\(path)"
      try Files.makeDirectories(of: path, under: root)
      // Another file system has no links to it, and its file does not go with the template.
      if link(place, kept) != 0, symlink(place, kept) != 0 {
        throw SystemError(code: errno, "link \(place)")
      }
      files.append(try BackupManifest.File(path, of: kept))
      return path
    }
    pool = template.pool
    generation = template.generation
    machine = record.machine
    readiness = record.readiness
    created = record.created
    sign = record.sign
    processor = record.processor
    memory = try keep(template.memory(record), as: "\(directory)/\(record.memory)")
    disk = try template.disk(record).map { disk in
      try keep(disk.path, as: "\(directory)/\(disk.format == .raw ? "disk.raw" : "disk-1.qcow2")")
    }
    variables =
      record.hasVariables
      ? try keep(template.variables, as: "\(directory)/variables.fd") : nil
    let library = Self.libraryPath(of: record.machine.image)
    let isLibrarys = library.map { "\(stateRoot)/\($0)" } == record.machine.image.path
    image = try keep(
      record.machine.image.path,
      as: isLibrarys ? library ?? "\(directory)/image" : "\(directory)/image")
    self.files = files
  }

  /// Where an image is in the state directory, if it is one of a library.
  private static func libraryPath(of image: Image) -> String? {
    let parts = image.path.split(separator: "/").suffix(3).map(String.init)
    guard parts.count == 3, parts[0] == "images", parts[2] == ImageDirectory.fileName(image.kind),
      (try? ImageName(checking: parts[1])) != nil
    else { return nil }
    return parts.joined(separator: "/")
  }

  // MARK: Reading

  init(parsing bytes: [UInt8]) throws(BrokerError) {
    self = try Self.decoded(bytes)
    try check()
  }

  private func check() throws(BrokerError) {
    func refuse(_ reason: String) throws(BrokerError) -> Never {
      throw BrokerError(.invalid, "what it says about itself is wrong: \(reason)")
    }
    guard (try? PoolName(checking: pool.rawValue)) != nil else { try refuse("its pool") }
    do { try machine.check() } catch { try refuse("its machine: \(error)") }
    do {
      _ = try TemplateReadiness(
        sign: readiness.sign, settleSeconds: readiness.settleSeconds,
        limitSeconds: readiness.limitSeconds)
    } catch { try refuse("how it became ready: \(error)") }
    // People read both on terminals.
    for text in [sign, machine.image.path] where !Self.isPlain(text) { try refuse("its text") }
    guard Self.isMemory(memory.dropFirst(directory.count + 1)),
      memory.hasPrefix(directory + "/")
    else { try refuse("its memory") }
    guard (disk != nil) == machine.hasDisk, disk == nil || diskFormat != nil else {
      try refuse("its disk")
    }
    guard variables == nil || variables == "\(directory)/variables.fd" else {
      try refuse("its variables")
    }
    guard image == libraryImage ?? "\(directory)/image" else { try refuse("its image") }
    let paths = files.map(\.path)
    let needed = [memory, disk, variables, image].compactMap { $0 }
    guard paths.count == needed.count, Set(paths) == Set(needed),
      Set(paths).count == paths.count
    else { try refuse("its list of files") }
    for path in paths where !BackupManifest.isPath(path) { try refuse("the path '\(path)'") }
    for file in files {
      guard file.size < 1 << 46, file.path != variables || file.size <= Self.largestVariables
      else { try refuse("a file's size") }
    }
  }

  private static func isPlain(_ text: String) -> Bool {
    text.utf8.count < 4096
      && text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7F..<0xA0).contains($0.value) }
  }

  /// `UUID.snapshot`
  private static func isMemory(_ name: Substring) -> Bool {
    name.utf8.count == 45 && name.hasSuffix(".snapshot")
      && name.prefix(36).allSatisfy { $0.isASCII && ($0.isHexDigit || $0 == "-") }
  }

  // MARK: What it is

  /// A disk has a copy of its image, or began empty, or is an overlay over the library's image.
  var diskFormat: DesktopDisk.Format? {
    if disk == "\(directory)/disk.raw" { return .raw }
    let isOverlay =
      disk == "\(directory)/disk-1.qcow2" && machine.image.kind == .disk && libraryImage != nil
    return isOverlay ? .qcow2 : nil
  }

  /// Where its image is in a state directory, if it was its library's.
  var libraryImage: String? {
    guard image.hasPrefix("images/"), let path = Self.libraryPath(of: machine.image) else {
      return nil
    }
    return path
  }

  /// The name of its image in the library.
  var imageName: ImageName? {
    libraryImage.map { ImageName(rawValue: String($0.split(separator: "/")[1])) }
  }

  /// The machine as it is on a site whose state is there.
  func machine(in stateRoot: String) -> TemplateMachine {
    var machine = machine
    if let libraryImage { machine.image.path = "\(stateRoot)/\(libraryImage)" }
    return machine
  }
}

extension Files {
  /// Makes the directories above a path that has no odd names in it.
  static func makeDirectories(of path: String, under root: String) throws(SystemError) {
    var place = root
    for part in path.split(separator: "/").dropLast() {
      place += "/\(part)"
      try makeDirectory(place)
    }
  }
}
