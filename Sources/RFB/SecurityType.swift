/// A security type as numbered by RFC 6143 section 7.1.2 and its registry.
public struct SecurityType: RawRepresentable, Hashable, Sendable {
  public let rawValue: UInt8

  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let none = SecurityType(rawValue: 1)
  public static let vncAuthentication = SecurityType(rawValue: 2)
  public static let veNCrypt = SecurityType(rawValue: 19)
}

/// A subtype of VeNCrypt 0.2. Only those that Carrel ever offers are named.
public struct VeNCryptSubtype: RawRepresentable, Hashable, Sendable {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// User name and password as they are: only where the transport is private.
  public static let plain = VeNCryptSubtype(rawValue: 256)
  /// TLS with the server's certificate, then a ticket by VNC authentication.
  public static let x509Vnc = VeNCryptSubtype(rawValue: 261)
  /// TLS with the server's certificate, then user name and password.
  public static let x509Plain = VeNCryptSubtype(rawValue: 262)

  var startsTLS: Bool { self == .x509Vnc || self == .x509Plain }
}

/// How a viewer reached the gateway, as far as it matters to what may be offered.
public enum Transport: Hashable, Sendable {
  case tcp(loopback: Bool)
  /// `encrypted` when the gateway itself ended TLS (wss).
  case webSocket(encrypted: Bool, loopback: Bool)
}

/// What the site allows.
public struct SecurityPolicy: Hashable, Sendable {
  /// A certificate is at hand, so that TLS can be started.
  public var tls: Bool
  /// One-time passwords for viewers that cannot send a user name.
  public var tickets: Bool
  /// Sessions without any password, as the user that the site names for it.
  public var passwordless: Bool
  /// Sessions in clear are allowed beyond loopback.
  public var cleartextSessions: Bool

  public init(
    tls: Bool = true, tickets: Bool = true, passwordless: Bool = false,
    cleartextSessions: Bool = false
  ) {
    self.tls = tls
    self.tickets = tickets
    self.passwordless = passwordless
    self.cleartextSessions = cleartextSessions
  }
}

/// What one viewer is offered, in order of preference: most viewers take the first
/// type that they know.
public struct SecurityOffer: Hashable, Sendable {
  public let types: [SecurityType]
  /// Subtypes of VeNCrypt; empty when `types` does not hold it.
  public let subtypes: [VeNCryptSubtype]

  public init(types: [SecurityType], subtypes: [VeNCryptSubtype]) {
    self.types = types
    self.subtypes = subtypes
  }

  /// The offer for a viewer that came by `transport` to a site with `policy`.
  ///
  /// A websocket gets VeNCrypt Plain alone, because noVNC prefers None and VNC
  /// authentication to it; one in clear from another host gets nothing at all.
  public init(transport: Transport, policy: SecurityPolicy) {
    switch transport {
    case .tcp(let loopback):
      let inClear = loopback || policy.cleartextSessions
      var types: [SecurityType] = []
      var subtypes: [VeNCryptSubtype] = []
      if policy.tls {
        types.append(.veNCrypt)
        subtypes = policy.tickets ? [.x509Plain, .x509Vnc] : [.x509Plain]
      }
      if policy.tickets, inClear { types.append(.vncAuthentication) }
      if policy.passwordless, inClear { types.append(.none) }
      self.init(types: types, subtypes: subtypes)
    case .webSocket(let encrypted, let loopback):
      let isPrivate = encrypted || loopback
      self.init(types: isPrivate ? [.veNCrypt] : [], subtypes: isPrivate ? [.plain] : [])
    }
  }
}
