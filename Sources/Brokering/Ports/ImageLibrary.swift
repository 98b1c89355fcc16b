/// The images that a site keeps, made or taken in by Carrel and named by the
/// administrator. Implemented by the host; called by the control API.
public protocol ImageLibrary: Sendable {
  /// All of them, by name, those under way and those that failed included.
  func images() async throws(BrokerError) -> [LibraryImage]

  /// Takes in a copy of `file`. Returns once the file was looked at and copying has
  /// begun; `images` tells how it goes on.
  /// - Throws: kind `exists` for a name that is taken, `invalid` for a file that is no
  ///   image, or one that needs other files.
  func importFile(_ file: String, as name: ImageName) async throws(BrokerError)

  /// Makes a Debian image. Returns once that has begun.
  func build(_ recipe: ImageRecipe, as name: ImageName) async throws(BrokerError)

  /// Removes the image, or ends its making. Whoever calls made sure that nobody needs
  /// it; `isInUse` is asked once more when pools that begin now cannot find it any more.
  func delete(
    _ name: ImageName, isInUse: @escaping @Sendable () async -> Bool
  ) async throws(BrokerError)
}

extension ImageLibrary {
  public func image(_ name: ImageName) async throws(BrokerError) -> LibraryImage {
    if let image = try await images().first(where: { $0.name == name }) { return image }
    throw BrokerError(.notFound, "there is no image '\(name)': see 'carrel image list'")
  }
}

/// One image of the library.
public struct LibraryImage: Hashable, Sendable {
  public enum State: Hashable, Sendable {
    /// `percent` where it is known.
    case making(step: String, percent: Int?)
    case ready
    /// Nothing is left of it but why.
    case failed(problem: String)
  }

  public let name: ImageName
  public let state: State
  public let kind: Image.Kind
  /// Where the finished image is.
  public let path: String
  /// What a guest sees, in bytes; 0 while it is made.
  public let size: UInt64
  /// What it takes on the host's disk.
  public let allocated: UInt64
  /// "Debian bookworm with xfce", "imported from /srv/office.qcow2".
  public let origin: String
  public let created: Timestamp
  /// The desktops' disks that are based on it.
  public let disks: [ImageDisk]

  public init(
    name: ImageName, state: State, kind: Image.Kind, path: String, size: UInt64,
    allocated: UInt64, origin: String, created: Timestamp, disks: [ImageDisk] = []
  ) {
    self.name = name
    self.state = state
    self.kind = kind
    self.path = path
    self.size = size
    self.allocated = allocated
    self.origin = origin
    self.created = created
    self.disks = disks
  }
}

/// One image of a desktop's disk, with what it is based on.
public struct ImageDisk: Hashable, Sendable {
  /// Or the template, such as `office@3`.
  public let desktop: DesktopID
  /// `disk-2.qcow2`, in the desktop's directory.
  public let name: String
  /// Directory and name of the image that it is based on: `office-1/disk-1.qcow2`, or the
  /// library's image.
  public let base: String?
  /// What it takes on the host's disk.
  public let allocated: UInt64
  /// Whether the desktop writes to it; the others stay as they are.
  public let isCurrent: Bool

  public init(
    desktop: DesktopID, name: String, base: String?, allocated: UInt64, isCurrent: Bool
  ) {
    self.desktop = desktop
    self.name = name
    self.base = base
    self.allocated = allocated
    self.isCurrent = isCurrent
  }
}

/// What a Debian image is made from.
public struct ImageRecipe: Hashable, Sendable {
  public enum Desktop: String, Hashable, Codable, Sendable, CaseIterable {
    case xfce, lxqt, none
  }

  public let suite: String
  public let desktop: Desktop
  /// Of the disk, in MiB.
  public let sizeMiB: Int
  /// Where packages come from; `nil`: as this host.
  public let mirror: String?

  public init(
    suite: String, desktop: Desktop, sizeMiB: Int, mirror: String?
  ) throws(BrokerError) {
    guard let first = suite.utf8.first, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(first),
      suite.utf8.allSatisfy({
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) || $0 == UInt8(ascii: "-")
      })
    else {
      throw BrokerError(
        .invalid, "'\(suite)' is no Debian suite: give its code name, such as bookworm")
    }
    guard (2048...4_194_304).contains(sizeMiB) else {
      throw BrokerError(
        .invalid, "a disk of \(sizeMiB) MiB cannot be: choose 2G to 4096G")
    }
    if let mirror, !mirror.hasPrefix("http://"), !mirror.hasPrefix("https://") {
      throw BrokerError(
        .invalid, "mirror '\(mirror)' is no address: it begins with http:// or https://")
    }
    self.suite = suite
    self.desktop = desktop
    self.sizeMiB = sizeMiB
    self.mirror = mirror
  }
}
