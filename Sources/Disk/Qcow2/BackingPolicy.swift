import Glibc
import LinuxSystem

/// Which files an image may be based on.
///
/// An image names its base itself. One from elsewhere could name any file that its user may
/// read, and show it to the guest.
public struct BackingPolicy: Sendable {
  /// As many layers may lie upon each other.
  public static let mostLayers = 64

  /// Files in these directories, and below them, may be.
  public var directories: [String]
  /// So may those in the directory of the image itself, and below.
  public var allowsOwnDirectory: Bool

  public init(directories: [String] = [], allowsOwnDirectory: Bool = true) {
    self.directories = directories
    self.allowsOwnDirectory = allowsOwnDirectory
  }

  /// Images that are based on nothing.
  public static let none = BackingPolicy(allowsOwnDirectory: false)
}

/// A chain of images that is being opened, from the top.
struct BackingChain {
  private struct Identity: Hashable {
    let device: UInt64
    let file: UInt64
  }

  private let directories: [String]
  private var seen: Set<Identity> = []

  /// - Parameter top: the image that everything is resolved from.
  init(top: FileDescriptor, _ path: String, _ policy: BackingPolicy) {
    var allowed = policy.directories.compactMap(Self.canonical)
    if policy.allowsOwnDirectory, let place = Self.place(of: top) {
      allowed.append(Self.directory(of: place))
    }
    directories = allowed
    note(top)
  }

  /// Opens what `header` of the image `file` at `path` says it is based on.
  mutating func open(
    _ header: Qcow2Header, of file: FileDescriptor, _ path: String
  ) throws(DiskError) -> (any ImageLayer)? {
    guard let bytes = header.backingName else { return nil }
    guard seen.count < BackingPolicy.mostLayers else {
      throw Self.refusal(path, "has more than \(BackingPolicy.mostLayers) layers; flatten some")
    }
    let name = try Self.name(bytes, path)
    let format = try Self.format(header.backingFormat, name, path)
    return try open(
      Self.resolve(name, from: Self.place(of: file) ?? path), format, for: path)
  }

  /// Opens a layer of `format`, and what it is based on.
  mutating func open(
    _ base: String, _ format: ImageFormat, for path: String
  ) throws(DiskError) -> any ImageLayer {
    let descriptor: FileDescriptor
    do {
      descriptor = try ImageFile.openLocked(base, isReadOnly: true)
    } catch {
      throw DiskError(
        kind: error.kind == .inUse ? .inUse : .backing,
        context: "the image that \(path) is based on cannot be used", cause: error)
    }
    guard isAllowed(descriptor) else {
      throw Self.refusal(
        path,
        "is based on \(base), which is in none of the directories that bases may be in;"
          + " if you trust it, allow its directory with --bases DIR ('carrel-vmm disk') or"
          + " bases=DIR (--disk)")
    }
    guard note(descriptor) else {
      throw Self.refusal(path, "is based on itself, by way of \(base); rebase it")
    }
    let storage = FileStorage(descriptor)
    switch format {
    case .raw: return try RawLayer(path: base, storage: storage)
    case .qcow2:
      let (header, _) = try Qcow2Header.read(storage, base)
      let backing = try open(header, of: descriptor, base)
      return try Qcow2Image(path: base, storage: storage, isReadOnly: true, backing: backing)
    }
  }

  static func refusal(_ path: String, _ text: String) -> DiskError {
    DiskError(kind: .backing, context: "image \(path) \(text)")
  }

  /// - Returns: `false` when it was there already.
  @discardableResult
  private mutating func note(_ file: FileDescriptor) -> Bool {
    // SAFETY: stat is a plain C structure that fstat fills.
    var status = stat()
    guard fstat(file.raw, &status) == 0 else { return false }
    return seen.insert(
      Identity(device: UInt64(status.st_dev), file: UInt64(status.st_ino))
    ).inserted
  }

  /// Judges the file that was opened and not a name that may lead elsewhere by now.
  private func isAllowed(_ file: FileDescriptor) -> Bool {
    guard let place = Self.place(of: file) else { return false }
    return directories.contains { place.hasPrefix($0 == "/" ? "/" : "\($0)/") }
  }
}

/// Names and paths.
extension BackingChain {
  static func name(_ bytes: [UInt8], _ path: String) throws(DiskError) -> String {
    guard !bytes.contains(where: { $0 < 0x20 || $0 == 0x7F }),
      let name = String(validating: bytes, as: UTF8.self)
    else { throw refusal(path, "is based on something whose name is no path; rebase it") }
    let scheme = name.prefix { $0 != "/" && $0 != ":" }
    guard scheme.endIndex == name.endIndex || name[scheme.endIndex] != ":" else {
      throw refusal(path, "is based on \(name), and bases are files here; rebase it to one")
    }
    return name
  }

  private static func format(
    _ format: String?, _ name: String, _ path: String
  ) throws(DiskError) -> ImageFormat {
    guard let format else {
      throw refusal(
        path,
        "does not say which format \(name), which it is based on, has; say it with"
          + " qemu-img rebase -u -b \(name) -F raw|qcow2 \(path)")
    }
    guard let known = ImageFormat(rawValue: format) else {
      throw refusal(path, "is based on an image of another format than raw or qcow2; convert it")
    }
    return known
  }

  static func resolve(_ name: String, from path: String) -> String {
    name.hasPrefix("/") ? name : "\(directory(of: path))/\(name)"
  }

  static func directory(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  static func canonical(_ path: String) -> String? {
    guard let real = realpath(path, nil) else { return nil }
    defer { free(real) }
    // SAFETY: realpath returned a NUL-terminated string, freed behind.
    return String(cString: real)
  }

  /// Where an open file really is.
  static func place(of file: FileDescriptor) -> String? {
    canonical("/proc/self/fd/\(file.raw)")
  }
}

extension Qcow2Image {
  /// Opens an image without what it is based on, as is enough to check it, and locks it.
  public static func openAlone(
    _ path: String, isReadOnly: Bool
  ) throws(DiskError) -> Qcow2Image {
    let storage = FileStorage(try ImageFile.openLocked(path, isReadOnly: isReadOnly))
    return try Qcow2Image(path: path, storage: storage, isReadOnly: isReadOnly)
  }

  /// Opens an image with all that it is based on, and locks them: the image exclusively when
  /// it is opened for writing, all else shared.
  ///
  /// - Parameter snapshot: the name or identifier of an internal snapshot to read.
  public static func open(
    _ path: String, isReadOnly: Bool, _ policy: BackingPolicy, snapshot: String? = nil
  ) throws(DiskError) -> Qcow2Image {
    let descriptor = try ImageFile.openLocked(path, isReadOnly: isReadOnly)
    let storage = FileStorage(descriptor)
    let (header, _) = try Qcow2Header.read(storage, path)
    var chain = BackingChain(top: descriptor, path, policy)
    let backing = try chain.open(header, of: descriptor, path)
    return try Qcow2Image(
      path: path, storage: storage, isReadOnly: isReadOnly, backing: backing, snapshot: snapshot)
  }
}
