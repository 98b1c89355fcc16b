/// A pool as the API shows it.
public struct PoolDocument: Codable, Hashable, Sendable {
  public var name: String
  /// `floating`, `dedicated` or `manual`.
  public var kind: String
  public var image: ImageDocument
  public var memoryMiB: Int
  public var cpus: Int
  /// Of the empty disk that desktops of an ISO have; `nil`: none.
  public var diskMiB: Int?
  public var hardware: HardwareDocument
  public var size: Int
  public var spares: Int
  public var policies: PolicyDocument
  public var draining: Bool
  public var created: WireTime
  public var desktops: DesktopCounts
  /// What keeps it from having its spares, if anything.
  public var problem: String?
  /// Why not all of its spares are started yet: what memory one needs, and what there is.
  public var waiting: String?

  public init(
    name: String, kind: String, image: ImageDocument, memoryMiB: Int, cpus: Int, diskMiB: Int?,
    hardware: HardwareDocument, size: Int, spares: Int, policies: PolicyDocument, draining: Bool,
    created: WireTime, desktops: DesktopCounts, problem: String?
  ) {
    self.name = name
    self.kind = kind
    self.image = image
    self.memoryMiB = memoryMiB
    self.cpus = cpus
    self.diskMiB = diskMiB
    self.hardware = hardware
    self.size = size
    self.spares = spares
    self.policies = policies
    self.draining = draining
    self.created = created
    self.desktops = desktops
    self.problem = problem
  }
}

public struct ImageDocument: Codable, Hashable, Sendable {
  /// `kernel`, `iso` or `disk`; found out from the file when left out.
  public var kind: String?
  /// Absolute path on the host of `carreld`.
  public var path: String
  /// Command line of a kernel.
  public var arguments: String?
  /// An image of the library: `path` counts only where it has none of that name.
  public var name: String?

  public init(
    kind: String? = nil, path: String, arguments: String? = nil, name: String? = nil
  ) {
    self.kind = kind
    self.path = path
    self.arguments = arguments
    self.name = name
  }
}

/// A pool's desktops by what they are doing.
public struct DesktopCounts: Codable, Hashable, Sendable {
  public var total: Int
  public var clean: Int
  public var assigned: Int
  public var connected: Int
  public var preparing: Int
  public var failed: Int

  public init(
    total: Int, clean: Int, assigned: Int, connected: Int, preparing: Int, failed: Int
  ) {
    self.total = total
    self.clean = clean
    self.assigned = assigned
    self.connected = connected
    self.preparing = preparing
    self.failed = failed
  }
}

/// The parts of a pool's machines; what is left out keeps its value or default.
public struct HardwareDocument: Codable, Hashable, Sendable {
  /// `bios` or `uefi`.
  public var firmware: String?
  /// `std` or `virtio[,outputs=N]`.
  public var video: String?
  /// `none`, `user[,host=on|off]` or `tap:PREFIX`.
  public var network: String?
  /// Pairs of queues of the network card.
  public var networkQueues: Int?
  /// `ac97`, `virtio` or `none`.
  public var audio: String?
  /// A USB controller with a tablet and a keyboard.
  public var usb: Bool?
  /// `ide` or `virtio`.
  public var diskBus: String?

  public init() {}
}

/// A pool's policies; what is left out keeps its value or default.
public struct PolicyDocument: Codable, Hashable, Sendable {
  /// `keep`, `suspend` or `end`.
  public var onDisconnect: String?
  public var disconnectSeconds: Int?
  /// `restart` or `recycle`.
  public var afterCrash: String?
  /// `steal` or `refuse`.
  public var takeover: String?
  /// `en-us`, `de` or `fr`.
  public var keyboardLayout: String?
  public var startAttempts: Int?
  public var stopGraceSeconds: Int?
  /// What a desktop's disk may use: operations and bytes a second, and as many at once after
  /// it had rest. 0 is no limit.
  public var diskIops: Int?
  public var diskIopsBurst: Int?
  public var diskBandwidth: Int?
  public var diskBandwidthBurst: Int?

  public init() {}
}

/// A pool to be made.
public struct PoolCreation: Codable, Hashable, Sendable {
  public var name: String
  public var kind: String
  public var image: ImageDocument
  public var memoryMiB: Int?
  public var cpus: Int?
  /// An empty disk for an ISO to install to.
  public var diskMiB: Int?
  public var hardware: HardwareDocument?
  public var size: Int?
  public var spares: Int?
  public var policies: PolicyDocument?

  public init(name: String, kind: String, image: ImageDocument) {
    self.name = name
    self.kind = kind
    self.image = image
  }
}

/// Changes to a pool; what is left out stays.
public struct PoolUpdate: Codable, Hashable, Sendable {
  public var image: ImageDocument?
  public var memoryMiB: Int?
  public var cpus: Int?
  /// An empty disk for an ISO to install to.
  public var diskMiB: Int?
  public var hardware: HardwareDocument?
  public var size: Int?
  public var spares: Int?
  public var policies: PolicyDocument?

  public init() {}
}
