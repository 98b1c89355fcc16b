/// A desktop as the API shows it.
public struct DesktopDocument: Codable, Hashable, Sendable {
  public var id: String
  public var pool: String
  /// `provisioning`, `clean`, `assigned`, `connected`, `disconnected`,
  /// `suspended`, `dirty`, `recycling`, `draining` or `failed`.
  public var phase: String
  /// `off`, `starting` or `running`.
  public var power: String
  /// What its start is at, if that is known, and how far.
  public var step: String?
  public var percent: Int?
  public var owner: String?
  public var session: String?
  /// Address of the viewer that is there now.
  public var viewer: String?
  public var held: Bool
  /// The snapshot that it is on its way back to.
  public var reverting: String?
  /// Why it is not started yet: what memory it needs, and what there is, or how many others
  /// boot before it.
  public var waiting: String?
  public var generation: UInt64
  public var failures: Int
  public var problem: String?
  public var since: WireTime
  public var displayLink: String

  public init(
    id: String, pool: String, phase: String, power: String, owner: String?, session: String?,
    viewer: String?, held: Bool, generation: UInt64, failures: Int, problem: String?,
    since: WireTime, displayLink: String
  ) {
    self.id = id
    self.pool = pool
    self.phase = phase
    self.power = power
    self.owner = owner
    self.session = session
    self.viewer = viewer
    self.held = held
    self.generation = generation
    self.failures = failures
    self.problem = problem
    self.since = since
    self.displayLink = displayLink
  }
}

public struct UserDocument: Codable, Hashable, Sendable {
  public var name: String
  public var disabled: Bool
  public var hasPassword: Bool
  public var pools: [String]
  public var desktops: [String]
  public var created: WireTime

  public init(
    name: String, disabled: Bool, hasPassword: Bool, pools: [String], desktops: [String],
    created: WireTime
  ) {
    self.name = name
    self.disabled = disabled
    self.hasPassword = hasPassword
    self.pools = pools
    self.desktops = desktops
    self.created = created
  }
}

/// Only ever sent to `carreld`; no `password`: the user logs in with tickets.
public struct UserCreation: Codable, Hashable, Sendable {
  public var name: String
  public var password: String?

  public init(name: String, password: String?) {
    self.name = name
    self.password = password
  }
}

public struct PasswordChange: Codable, Hashable, Sendable {
  public var password: String
  public init(password: String) { self.password = password }
}

public struct DisabledChange: Codable, Hashable, Sendable {
  public var disabled: Bool
  public init(disabled: Bool) { self.disabled = disabled }
}

public struct Assignment: Codable, Hashable, Sendable {
  public var user: String
  public init(user: String) { self.user = user }
}

public struct SessionDocument: Codable, Hashable, Sendable {
  public var id: String
  public var user: String
  public var desktop: String
  public var pool: String
  /// The desktop's phase.
  public var state: String
  public var peer: String
  public var started: WireTime
  public var changed: WireTime

  public init(
    id: String, user: String, desktop: String, pool: String, state: String, peer: String,
    started: WireTime, changed: WireTime
  ) {
    self.id = id
    self.user = user
    self.desktop = desktop
    self.pool = pool
    self.state = state
    self.peer = peer
    self.started = started
    self.changed = changed
  }
}

public struct TicketRequest: Codable, Hashable, Sendable {
  public var pool: String?
  public var seconds: Int?

  public init(pool: String? = nil, seconds: Int? = nil) {
    self.pool = pool
    self.seconds = seconds
  }
}

public struct TicketDocument: Codable, Hashable, Sendable {
  /// The one-time password.
  public var ticket: String
  public var user: String
  public var pool: String?
  public var expires: WireTime

  public init(ticket: String, user: String, pool: String?, expires: WireTime) {
    self.ticket = ticket
    self.user = user
    self.pool = pool
    self.expires = expires
  }
}

public struct DecisionDocument: Codable, Hashable, Sendable {
  public var time: WireTime
  /// A stable reason code such as `login-clean-spare`.
  public var reason: String
  public var user: String?
  public var desktop: String?
  public var text: String

  public init(time: WireTime, reason: String, user: String?, desktop: String?, text: String) {
    self.time = time
    self.reason = reason
    self.user = user
    self.desktop = desktop
    self.text = text
  }
}

/// What a login of this user would do now, and what happened before.
public struct ExplanationDocument: Codable, Hashable, Sendable {
  public struct Outcome: Codable, Hashable, Sendable {
    /// `nil`: a login that names no pool.
    public var pool: String?
    public var reason: String
    public var text: String

    public init(pool: String?, reason: String, text: String) {
      self.pool = pool
      self.reason = reason
      self.text = text
    }
  }

  public var user: String
  public var now: [Outcome]
  public var history: [DecisionDocument]

  public init(user: String, now: [Outcome], history: [DecisionDocument]) {
    self.user = user
    self.now = now
    self.history = history
  }
}

public struct StatusDocument: Codable, Hashable, Sendable {
  public var version: String
  public var started: WireTime
  public var processID: Int
  /// Where viewers connect: `vnc://host:5900`, `https://host:8443/`.
  public var addresses: [String]
  /// SHA-256 of the gateway's certificate.
  public var fingerprint: String?
  public var pools: [PoolDocument]
  public var users: Int
  public var sessions: Int
  public var viewers: Int
  public var waiting: Int
  /// `nil` until it was measured.
  public var memory: MemoryDocument?

  public init(
    version: String, started: WireTime, processID: Int, addresses: [String], fingerprint: String?,
    pools: [PoolDocument], users: Int, sessions: Int, viewers: Int, waiting: Int,
    memory: MemoryDocument?
  ) {
    self.version = version
    self.started = started
    self.processID = processID
    self.addresses = addresses
    self.fingerprint = fingerprint
    self.pools = pools
    self.users = users
    self.sessions = sessions
    self.viewers = viewers
    self.waiting = waiting
    self.memory = memory
  }
}

/// The host's memory, in MiB.
public struct MemoryDocument: Codable, Hashable, Sendable {
  /// `ok`, `tight` or `critical`.
  public var state: String
  public var totalMiB: Int
  public var availableMiB: Int
  /// What desktops that run may take.
  public var promisedMiB: Int
  /// The most that may be promised, and how much of it is for those who log in.
  public var limitMiB: Int
  public var reserveMiB: Int

  public init(
    state: String, totalMiB: Int, availableMiB: Int, promisedMiB: Int, limitMiB: Int,
    reserveMiB: Int
  ) {
    self.state = state
    self.totalMiB = totalMiB
    self.availableMiB = availableMiB
    self.promisedMiB = promisedMiB
    self.limitMiB = limitMiB
    self.reserveMiB = reserveMiB
  }
}

/// What `carrel doctor` found.
public struct DoctorDocument: Codable, Hashable, Sendable {
  public struct Check: Codable, Hashable, Sendable {
    public enum State: String, Codable, Hashable, Sendable { case ok, warning, failed }

    public var name: String
    public var state: State
    public var detail: String
    /// What to do about it.
    public var remedy: String?

    public init(name: String, state: State, detail: String, remedy: String? = nil) {
      self.name = name
      self.state = state
      self.detail = detail
      self.remedy = remedy
    }
  }

  public var checks: [Check]
  public init(checks: [Check]) { self.checks = checks }
}

/// The body of every answer that is not a success.
public struct ErrorDocument: Codable, Hashable, Sendable {
  public enum Kind: String, Codable, Hashable, Sendable {
    case notFound, exists, invalid, conflict, forbidden, storage, host
  }

  public var kind: Kind
  public var message: String

  public init(kind: Kind, message: String) {
    self.kind = kind
    self.message = message
  }
}
