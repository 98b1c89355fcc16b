import Brokering
import Glibc
import LinuxSystem
import QMP

/// Where one image of the library is, and the one owner of every file name there.
///
/// An image exists when its manifest does, which is written last: whatever else is
/// found was left by a making that did not come to its end.
struct ImageDirectory: Hashable, Sendable {
  let name: ImageName
  private let root: String

  init(_ name: ImageName, stateRoot: String) {
    self.name = name
    root = Self.root(stateRoot)
  }

  static func root(_ stateRoot: String) -> String { stateRoot + "/images" }

  var path: String { "\(root)/\(name)" }
  var manifest: String { path + "/image.json" }
  var draft: String { path + "/image.new" }
  /// What the last making said; names of images do not begin with a dot.
  var log: String { "\(root)/.logs/\(name)" }

  func file(_ kind: Image.Kind) -> String { "\(path)/\(Self.fileName(kind))" }

  static func fileName(_ kind: Image.Kind) -> String {
    switch kind {
    case .kernel: "image.elf"
    case .iso: "image.iso"
    case .disk: "image.raw"
    }
  }

  /// Whether that is the disk of an image, and no other file that may be reached from there.
  static func isLibraryDisk(_ path: String, in images: String) -> Bool {
    guard path.hasPrefix(images + "/") else { return false }
    let parts = path.dropFirst(images.count + 1).split(
      separator: "/", omittingEmptySubsequences: false)
    return parts.count == 2 && parts[1] == fileName(.disk)
      && (try? ImageName(checking: String(parts[0]))) != nil
  }

  /// Makes it, empty.
  func create() throws(SystemError) {
    try makeRoot()
    try Files.makeDirectory(path)
  }

  /// Makes the library, if there is none.
  func makeRoot() throws(SystemError) {
    try Files.makeDirectory(root)
    try Files.makeDirectory(root + "/.logs")
  }

  /// Puts the draft in its place, for good.
  func finish(_ manifest: Manifest) throws(SystemError) {
    let draft = try FileDescriptor.open(draft, [.writable])
    try draft.synchronize()
    guard rename(self.draft, file(manifest.kind)) == 0 else {
      throw SystemError(code: errno, "put \(file(manifest.kind)) in place")
    }
    try Files.replace(self.manifest, with: manifest.encoded)
  }

  /// Takes the image away: no pool finds it any more. `restore` undoes it.
  func hide() throws(SystemError) {
    guard rename(manifest, hidden) == 0 else {
      throw SystemError(code: errno, "take \(manifest) away")
    }
  }

  func restore() throws(SystemError) {
    guard !Files.exists(manifest) else { return }
    guard rename(hidden, manifest) == 0 else {
      throw SystemError(code: errno, "put \(manifest) back")
    }
  }

  private var hidden: String { path + "/deleted.json" }

  /// Removes it with all that is in it; one that is not there is no error.
  func delete() throws(SystemError) {
    for file in [manifest, hidden, draft, file(.disk), file(.iso), file(.kernel)] {
      try Files.remove(file)
    }
    guard rmdir(path) == 0 || errno == ENOENT else {
      throw SystemError(code: errno, "remove directory \(path)")
    }
  }

  /// Every image that has a directory.
  static func all(stateRoot: String) throws(SystemError) -> [ImageDirectory] {
    try DesktopDirectory.names(in: root(stateRoot))
      .compactMap { try? ImageName(checking: $0) }.sorted()
      .map { ImageDirectory($0, stateRoot: stateRoot) }
  }

  /// What is known about a finished image.
  struct Manifest: Hashable, Sendable {
    var kind: Image.Kind
    var origin: String
    var created: Timestamp

    var encoded: [UInt8] {
      JSON.object([
        "version": .integer(1), "kind": .string(kind.rawValue), "origin": .string(origin),
        "created": .integer(created.milliseconds),
      ]).encoded
    }
  }

  /// The finished image; `nil` when there is none.
  ///
  /// - Parameter disks: the desktops' disks by the image that they are based on.
  func load(_ disks: [String: [ImageDisk]]) throws(BrokerError) -> LibraryImage? {
    guard Files.exists(manifest) else { return nil }
    guard let bytes = try? Files.read(manifest, limit: 1 << 16),
      let value = try? JSON(parsing: bytes),
      value["version"]?.whole == 1,
      let kind = value["kind"]?.text.flatMap(Image.Kind.init(rawValue:)),
      let origin = value["origin"]?.text, let created = value["created"]?.whole
    else {
      throw BrokerError(
        .storage,
        "\(manifest) is not what Carrel wrote: delete the image with 'carrel image delete \(name)'"
          + " and make it again")
    }
    // SAFETY: stat is a plain C structure that the call fills or leaves.
    var status = stat()
    guard stat(file(kind), &status) == 0 else {
      throw BrokerError(
        .storage, "image '\(name)' has lost its file \(file(kind)): put it back, or delete it")
    }
    return LibraryImage(
      name: name, state: .ready, kind: kind, path: file(kind),
      size: UInt64(clamping: status.st_size), allocated: UInt64(clamping: status.st_blocks) << 9,
      origin: origin, created: Timestamp(milliseconds: Int64(created)),
      disks: disks[file(kind)] ?? [])
  }
}
