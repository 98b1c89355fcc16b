/// Somebody who may log in.
public struct User: Hashable, Codable, Sendable {
  public let name: UserName
  /// What `Authenticator.makeVerifier` returned; `nil`: no password, tickets only.
  public var verifier: String?
  public var disabled: Bool
  public let created: Timestamp

  public init(name: UserName, verifier: String?, created: Timestamp) {
    self.name = name
    self.verifier = verifier
    disabled = false
    self.created = created
  }
}

/// A user may have desktops of a pool.
public struct Entitlement: Hashable, Comparable, Codable, Sendable {
  public let user: UserName
  public let pool: PoolName

  public init(user: UserName, pool: PoolName) {
    self.user = user
    self.pool = pool
  }

  public static func < (left: Self, right: Self) -> Bool {
    (left.user, left.pool) < (right.user, right.pool)
  }
}

/// One stay of a user on a desktop: from assignment until the user ends it.
public struct Session: Hashable, Codable, Sendable {
  public let id: SessionID
  public let user: UserName
  public let desktop: DesktopID
  public let started: Timestamp
  /// Where the present or last viewer came from.
  public var peer: String
  /// When the last viewer came or left.
  public var changed: Timestamp

  public init(
    id: SessionID, user: UserName, desktop: DesktopID, started: Timestamp, peer: String
  ) {
    self.id = id
    self.user = user
    self.desktop = desktop
    self.started = started
    self.peer = peer
    changed = started
  }
}

/// A one-time password for viewers that cannot send a name.
public struct Ticket: Hashable, Codable, Sendable {
  public let id: TicketID
  public let user: UserName
  public let pool: PoolName?
  /// Instead of a pool: one of the user's own.
  public let desktop: DesktopID?
  /// VncAuth proves knowledge of the secret itself, so it is kept until used.
  public let secret: String
  public let expires: Timestamp

  public init(
    id: TicketID, user: UserName, pool: PoolName?, desktop: DesktopID? = nil, secret: String,
    expires: Timestamp
  ) {
    self.id = id
    self.user = user
    self.pool = pool
    self.desktop = desktop
    self.secret = secret
    self.expires = expires
  }
}
