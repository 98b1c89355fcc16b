/// Desktops made from one image under one set of rules.
public struct Pool: Hashable, Sendable {
  public let name: PoolName
  public var kind: PoolKind
  public var image: Image
  public var memoryMiB: Int
  public var cpus: Int
  /// Size of the empty disk beside an ISO, for an installer; `nil`: there is none.
  public var diskMiB: Int?
  /// The other parts of the machine.
  public var hardware: Hardware
  /// The most desktops that may exist at once.
  public var size: Int
  /// Clean, running, unassigned desktops to keep ready.
  public var spares: Int
  public var policies: PoolPolicies
  /// Being deleted: no new desktops and no new sessions.
  public var draining: Bool
  /// Number of the next desktop; numbers are not used twice.
  public var nextNumber: UInt64
  public let created: Timestamp

  public init(
    name: PoolName, kind: PoolKind, image: Image, memoryMiB: Int = 512, cpus: Int = 1,
    diskMiB: Int? = nil, hardware: Hardware = Hardware(), size: Int, spares: Int,
    policies: PoolPolicies, created: Timestamp
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
    draining = false
    nextNumber = 1
    self.created = created
  }

  /// Whether each desktop has a disk of its own.
  public var hasDisks: Bool { image.kind == .disk || diskMiB != nil }

  /// What is wrong with it, if anything.
  public func check() throws(BrokerError) {
    try require(1...1_000_000, memoryMiB, "memory (MiB)")
    try require(1...64, cpus, "cpus")
    try require(1...10_000, size, "size")
    try require(0...size, spares, "spares")
    if let diskMiB {
      try require(1...16_777_216, diskMiB, "disk size (MiB)")
      guard image.kind == .iso else {
        throw BrokerError(
          .invalid,
          "pool '\(name)': an empty disk is for desktops that start from an ISO: leave out "
            + "--disk-size")
      }
    }
    try checkHardware()
    try checkDiskLimits()
    guard image.path.hasPrefix("/") else {
      throw BrokerError(
        .invalid,
        "pool '\(name)': image '\(image.path)' is not an absolute path: give the whole path"
      )
    }
  }

  private func checkHardware() throws(BrokerError) {
    if hardware.firmware == .uefi, image.kind == .kernel {
      throw BrokerError(
        .invalid,
        "pool '\(name)': image '\(image.path)' is a kernel, which is started without firmware: "
          + "give --firmware bios, or a disk or an ISO")
    }
    try require(
      1...Hardware.Network.mostQueues, hardware.networkQueues, "the number of network queues")
    if hardware.networkQueues != 1, hardware.network == .none {
      throw BrokerError(
        .invalid,
        "pool '\(name)': its desktops have no network card that could have "
          + "\(hardware.networkQueues) pairs of queues: give --network, or --network-queues 1")
    }
    if hardware.diskBus != .ide, !hasDisks {
      throw BrokerError(
        .invalid,
        "pool '\(name)': its desktops have no disk that could be \(hardware.diskBus.rawValue): "
          + "give --disk-bus ide")
    }
  }

  private func checkDiskLimits() throws(BrokerError) {
    if let problem = policies.diskLimits.problem() {
      throw BrokerError(.invalid, "pool '\(name)': \(problem)")
    }
    guard hasDisks || policies.diskLimits.isUnlimited else {
      throw BrokerError(
        .invalid,
        "pool '\(name)': its desktops have no disk whose rate could be limited: leave out "
          + "--disk-iops and --disk-bandwidth")
    }
  }

  private func require(
    _ range: ClosedRange<Int>, _ value: Int, _ what: String
  ) throws(BrokerError) {
    guard range.contains(value) else {
      throw BrokerError(
        .invalid,
        "pool '\(name)': \(what) is \(value): choose \(range.lowerBound) to \(range.upperBound)")
    }
  }
}

/// Pools of earlier versions have the machine of then.
extension Pool: Codable {
  private enum CodingKeys: String, CodingKey {
    case name, kind, image, memoryMiB, cpus, diskMiB, hardware, size, spares, policies, draining
    case nextNumber, created
  }

  public init(from decoder: any Decoder) throws {
    let record = try decoder.container(keyedBy: CodingKeys.self)
    self.init(
      name: try record.decode(PoolName.self, forKey: .name),
      kind: try record.decode(PoolKind.self, forKey: .kind),
      image: try record.decode(Image.self, forKey: .image),
      memoryMiB: try record.decode(Int.self, forKey: .memoryMiB),
      cpus: try record.decode(Int.self, forKey: .cpus),
      diskMiB: try record.decodeIfPresent(Int.self, forKey: .diskMiB),
      hardware: try record.decodeIfPresent(Hardware.self, forKey: .hardware) ?? Hardware(),
      size: try record.decode(Int.self, forKey: .size),
      spares: try record.decode(Int.self, forKey: .spares),
      policies: try record.decode(PoolPolicies.self, forKey: .policies),
      created: try record.decode(Timestamp.self, forKey: .created))
    draining = try record.decode(Bool.self, forKey: .draining)
    nextNumber = try record.decode(UInt64.self, forKey: .nextNumber)
  }
}

public enum PoolKind: String, Hashable, Codable, Sendable, CaseIterable {
  /// A fresh desktop for each session.
  case floating
  /// Assigned at first login; its disk is kept.
  case dedicated
  /// Assigned by the administrator only; its disk is kept.
  case manual

  public var keepsDesktops: Bool { self != .floating }
}

/// What desktops are started from.
public struct Image: Hashable, Codable, Sendable {
  public enum Kind: String, Hashable, Codable, Sendable {
    /// An ELF kernel, booted directly.
    case kernel
    /// A CD-ROM, booted by the firmware.
    case iso
    /// A raw disk: each desktop gets its own copy.
    case disk
  }

  public var kind: Kind
  /// Absolute path on the host.
  public var path: String
  /// Command line of a kernel.
  public var arguments: String

  public init(kind: Kind, path: String, arguments: String = "") {
    self.kind = kind
    self.path = path
    self.arguments = arguments
  }
}

/// What a pool does when something happens.
public struct PoolPolicies: Hashable, Codable, Sendable {
  public enum OnDisconnect: String, Hashable, Codable, Sendable, CaseIterable {
    case keep, suspend, end
  }
  public enum AfterCrash: String, Hashable, Codable, Sendable, CaseIterable {
    /// Start it again for the same user.
    case restart
    /// End the session.
    case recycle
  }
  public enum Takeover: String, Hashable, Codable, Sendable, CaseIterable {
    /// The newer viewer gets the desktop, the older is told.
    case steal
    /// The newer viewer is refused.
    case refuse
  }

  public static let keyboardLayouts = ["en-us", "de", "fr"]

  /// What becomes of a desktop whose viewer left, after `disconnectSeconds`.
  public var onDisconnect: OnDisconnect
  public var disconnectSeconds: Int
  public var afterCrash: AfterCrash
  public var takeover: Takeover
  /// `en-us`, `de`, `fr`.
  public var keyboardLayout: String
  /// Failed starts in a row before a desktop is given up.
  public var startAttempts: Int
  /// How long a guest may take to shut down before it is killed.
  public var stopGraceSeconds: Int
  /// See `diskLimits`.
  var diskOperations: Int?
  var diskOperationsBurst: Int?
  var diskBandwidth: Int?
  var diskBandwidthBurst: Int?

  public init(
    onDisconnect: OnDisconnect = .keep, disconnectSeconds: Int = 0,
    afterCrash: AfterCrash = .restart, takeover: Takeover = .steal,
    keyboardLayout: String = "en-us", startAttempts: Int = 5, stopGraceSeconds: Int = 30,
    diskLimits: DiskLimits = DiskLimits()
  ) {
    self.onDisconnect = onDisconnect
    self.disconnectSeconds = disconnectSeconds
    self.afterCrash = afterCrash
    self.takeover = takeover
    self.keyboardLayout = keyboardLayout
    self.startAttempts = startAttempts
    self.stopGraceSeconds = stopGraceSeconds
    self.diskLimits = diskLimits
  }
}
