/// Templates of pools: desktops that were started, painted and never used, from which the
/// pools' desktops are cloned in milliseconds. Implemented by the host.
///
/// A template is of one image on one machine and one processor. When any of them changes,
/// it serves no more: the next start of a desktop boots, and a new generation is made
/// meanwhile. Generations stay while desktops are based on them.
public protocol TemplateLibrary: Sendable {
  /// All generations, those being made and the last that failed included, by pool.
  func templates() async throws(BrokerError) -> [PoolTemplate]

  /// Makes a new generation. Returns once that has begun; `templates` tells how it goes on.
  /// - Throws: kind `conflict` while one is being made.
  func makeTemplate(_ plan: TemplatePlan) async throws(BrokerError)

  /// Ends the making, if one is under way, and has no desktop cloned any more. What
  /// desktops are based on goes with the last of them.
  func deleteTemplate(of pool: PoolName) async throws(BrokerError)
}

/// How to make a template.
public struct TemplatePlan: Hashable, Sendable {
  public let pool: PoolName
  public let machine: TemplateMachine
  public let readiness: TemplateReadiness

  public init(pool: PoolName, machine: TemplateMachine, readiness: TemplateReadiness) {
    self.pool = pool
    self.machine = machine
    self.readiness = readiness
  }
}

/// What a template is a machine of.
public struct TemplateMachine: Hashable, Codable, Sendable {
  public var image: Image
  public let memoryMiB: Int
  public let cpus: Int
  public let diskMiB: Int?
  public let hardware: Hardware

  public init(of pool: Pool) {
    image = pool.image
    memoryMiB = pool.memoryMiB
    cpus = pool.cpus
    diskMiB = pool.diskMiB
    hardware = pool.hardware
  }

  public init(of request: LaunchRequest) {
    image = request.image
    memoryMiB = request.memoryMiB
    cpus = request.cpus
    diskMiB = request.diskMiB
    hardware = request.hardware
  }

  /// Of a desktop as it was taken: without its kernel's command line, and its disk's size.
  public init(of shape: DesktopShape) {
    image = Image(kind: shape.kind, path: shape.imagePath ?? "")
    memoryMiB = shape.memoryMiB
    cpus = shape.cpus
    diskMiB = nil
    hardware = shape.hardware
  }

  /// Whether it has a disk.
  public var hasDisk: Bool { image.kind == .disk || diskMiB != nil }

  /// What is wrong with it, as it would be with a pool's, if anything.
  public func check() throws(BrokerError) {
    try Pool(
      name: PoolName(rawValue: "template"), kind: .floating, image: image, memoryMiB: memoryMiB,
      cpus: cpus, diskMiB: diskMiB, hardware: hardware, size: 1, spares: 0,
      policies: PoolPolicies(), created: Timestamp(milliseconds: 0)
    ).check()
  }

  /// What it has other than `other`, for people; `nil` when that is nothing.
  public func difference(from other: TemplateMachine) -> String? {
    if image != other.image {
      return "image '\(image.path)', not '\(other.image.path)'"
        + (image.arguments == other.image.arguments ? "" : ", with another command line")
    }
    if memoryMiB != other.memoryMiB {
      return "\(memoryMiB) MiB of memory, not \(other.memoryMiB)"
    }
    if cpus != other.cpus { return "\(cpus) processors, not \(other.cpus)" }
    if diskMiB != other.diskMiB { return "a disk of another size" }
    return hardware == other.hardware ? nil : "other hardware"
  }
}

/// When a booting desktop is taken.
public struct TemplateReadiness: Hashable, Codable, Sendable {
  public enum Sign: Hashable, Codable, Sendable {
    /// Its guest agent answers, or its screen and processors rest, whichever is first.
    case automatic
    case agent
    /// Its screen and processors rest.
    case screen
    /// This file is there, as its guest agent says.
    case marker(String)
  }

  public let sign: Sign
  /// How long screen and processors have to rest, after the sign as well.
  public let settleSeconds: Int
  /// It fails then.
  public let limitSeconds: Int

  public init(
    sign: Sign = .automatic, settleSeconds: Int = 5, limitSeconds: Int = 900
  ) throws(BrokerError) {
    guard (1...600).contains(settleSeconds) else {
      throw BrokerError(.invalid, "\(settleSeconds) s to settle: choose 1 to 600")
    }
    guard (settleSeconds...86_400).contains(limitSeconds) else {
      throw BrokerError(
        .invalid, "a limit of \(limitSeconds) s: choose \(settleSeconds) to 86400")
    }
    if case .marker(let path) = sign, !path.hasPrefix("/") {
      throw BrokerError(
        .invalid, "marker '\(path)' is no absolute path: give that of a file in the guest")
    }
    self.sign = sign
    self.settleSeconds = settleSeconds
    self.limitSeconds = limitSeconds
  }
}

/// One generation of a pool's template.
public struct PoolTemplate: Hashable, Sendable {
  public enum State: Hashable, Sendable {
    case making(step: String)
    case ready
    /// It serves no more; why.
    case stale(String)
    /// Nothing is left of it but why.
    case failed(problem: String)
  }

  public let pool: PoolName
  public let generation: UInt64
  public var state: State
  /// Not known of one that is not what was written.
  public let machine: TemplateMachine?
  public let readiness: TemplateReadiness?
  public let created: Timestamp
  /// What was seen when it was taken: "its guest agent answered".
  public var sign: String?
  /// Desktops that were cloned from it and are there yet.
  public var clones: [DesktopID] = []
  /// What memory and disk take on the host, in bytes.
  public var memoryBytes: UInt64 = 0
  public var diskBytes: UInt64 = 0

  public init(
    pool: PoolName, generation: UInt64, state: State, machine: TemplateMachine?,
    readiness: TemplateReadiness?, created: Timestamp
  ) {
    self.pool = pool
    self.generation = generation
    self.state = state
    self.machine = machine
    self.readiness = readiness
    self.created = created
  }
}
