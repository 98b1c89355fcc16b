/// An image of the library as the API shows it.
public struct LibraryImageDocument: Codable, Hashable, Sendable {
  public var name: String
  /// `making`, `ready` or `failed`.
  public var state: String
  /// `iso` or `disk`.
  public var kind: String
  /// On the host of `carreld`.
  public var path: String
  /// In bytes, as a guest sees it; 0 unless it is ready.
  public var size: UInt64
  /// What it takes on the host, in bytes.
  public var allocated: UInt64
  public var origin: String
  public var created: WireTime
  /// What is being done, and how much of it is, in percent, where that is known.
  public var step: String?
  public var percent: Int?
  /// Why it failed.
  public var problem: String?
  /// The pools that are made from it, and whose desktops those are.
  public var pools: [String]
  public var users: [String]
  /// Desktops' disks that are based on it.
  public var disks: [ImageDiskDocument]

  public init(
    name: String, state: String, kind: String, path: String, size: UInt64, allocated: UInt64,
    origin: String, created: WireTime, pools: [String], users: [String],
    disks: [ImageDiskDocument] = []
  ) {
    self.name = name
    self.state = state
    self.kind = kind
    self.path = path
    self.size = size
    self.allocated = allocated
    self.origin = origin
    self.created = created
    self.pools = pools
    self.users = users
    self.disks = disks
  }
}

/// An image that a desktop's disk is made of.
public struct ImageDiskDocument: Codable, Hashable, Sendable {
  /// Or the template, such as `office@3`.
  public var desktop: String
  /// Whose desktop it is.
  public var owner: String?
  /// `disk-2.qcow2`
  public var name: String
  /// What it is based on: `office-1/disk-1.qcow2` of a desktop or a template, or the library's
  /// image, `debian/image.raw`.
  public var base: String?
  /// What it takes on the host, in bytes.
  public var allocated: UInt64
  /// Whether the desktop writes to it.
  public var isCurrent: Bool

  public init(
    desktop: String, owner: String?, name: String, base: String?, allocated: UInt64,
    isCurrent: Bool
  ) {
    self.desktop = desktop
    self.owner = owner
    self.name = name
    self.base = base
    self.allocated = allocated
    self.isCurrent = isCurrent
  }
}

/// An image to be made: from `file`, or as a Debian of `suite`.
public struct ImageCreation: Codable, Hashable, Sendable {
  public var name: String
  /// Absolute path of an ISO, or of a raw, qcow2, vmdk or vdi disk, on the host of
  /// `carreld`.
  public var file: String?
  /// `bookworm`
  public var suite: String?
  /// `xfce`, `lxqt` or `none`.
  public var desktop: String?
  public var sizeMiB: Int?
  /// Where Debian's packages come from.
  public var mirror: String?

  public init(name: String) { self.name = name }
}
