import Brokering
import RFB

/// Where and how the gateway listens.
public struct GatewayConfiguration: Sendable {
  /// An address and port, as `host:port`; port 0 takes any free one.
  public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    public let host: String
    public let port: Int

    public init(host: String, port: Int) {
      self.host = host
      self.port = port
    }

    public var description: String {
      host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
  }

  /// The certificate (PEM, the server's own first) and its key.
  public struct TLSFiles: Hashable, Sendable {
    public let certificatePath: String
    public let keyPath: String

    public init(certificatePath: String, keyPath: String) {
      self.certificatePath = certificatePath
      self.keyPath = keyPath
    }
  }

  /// Listeners for RFB over TCP.
  public var viewers: [Endpoint]
  /// Listeners for noVNC: HTTPS, or HTTP where `webTLS` is off.
  public var web: [Endpoint]
  public var webTLS: Bool
  /// `nil` leaves out VeNCrypt X509 and HTTPS.
  public var tls: TLSFiles?
  public var tickets: Bool
  /// Who a viewer is that chose security type None; `nil` does not offer it.
  public var passwordlessUser: UserName?
  public var cleartextSessions: Bool
  public var noVNCDirectory: String
  public var limits: GatewayLimits

  public init(
    viewers: [Endpoint], web: [Endpoint] = [], webTLS: Bool = true, tls: TLSFiles?,
    tickets: Bool = true, passwordlessUser: UserName? = nil, cleartextSessions: Bool = false,
    noVNCDirectory: String = "/usr/share/novnc", limits: GatewayLimits = .init()
  ) {
    self.viewers = viewers
    self.web = web
    self.webTLS = webTLS
    self.tls = tls
    self.tickets = tickets
    self.passwordlessUser = passwordlessUser
    self.cleartextSessions = cleartextSessions
    self.noVNCDirectory = noVNCDirectory
    self.limits = limits
  }

  var policy: SecurityPolicy {
    SecurityPolicy(
      tls: tls != nil, tickets: tickets, passwordless: passwordlessUser != nil,
      cleartextSessions: cleartextSessions)
  }
}

/// What a viewer may cost before and after it is known.
public struct GatewayLimits: Hashable, Sendable {
  /// For everything that programs do in a handshake, TLS and HTTP included.
  public var handshake: Duration = .seconds(10)
  /// For a person to type name and password.
  public var person: Duration = .seconds(120)
  /// For a display process to start and greet.
  public var display: Duration = .seconds(10)
  /// For a viewer that takes no byte of what waits for it.
  public var stall: Duration = .seconds(2)
  /// For a viewer to read why it is being closed.
  public var linger: Duration = .milliseconds(500)
  /// For a display process to show the last message it was given, which it does for 30 s.
  public var farewell: Duration = .seconds(40)
  /// Connections that have not logged in: in all, and from one address.
  public var strangers = 256
  public var strangersPerPeer = 32
  /// Viewers that have.
  public var viewers = 1024

  public init() {}
}
