/// One authenticated viewer, as the broker drives it. Implemented by the gateway
/// around a display process.
///
/// The broker calls from its own task, in order, and never waits for the viewer:
/// each method queues a message for the display process and returns. After
/// `close`, or once the viewer is gone, they do nothing.
public protocol ViewerConnection: Sendable {
  var id: ConnectionID { get }

  /// Shows the desktop behind that display link, now or whenever it appears.
  /// Attaching to the present path again is free; to another leaves the first.
  func attach(displayLink path: String)

  /// How characters that the viewer sends become keys: one of
  /// `PoolPolicies.keyboardLayouts`. At once, also while attached.
  func setKeyboardLayout(_ layout: String)

  /// Leaves the desktop and shows the status screen.
  func detach()

  /// The screen shown while there is no desktop. `percent` 0...100, or `nil`.
  func showStatus(_ text: String, percent: Int?)

  /// The desktop name that the viewer puts in its title.
  func setName(_ name: String)

  /// Tells the user why, then closes.
  func close(telling text: String)
}

/// What a gateway asks of the broker. Implemented by `Broker`.
public protocol SessionBroker: Sendable {
  /// Checks a password. Takes as long for an unknown user as for a wrong
  /// password. The name may choose a pool, or one of the user's desktops: `alice/office`,
  /// `alice/office-7`. Repeated failures are
  /// delayed and then locked out, by user and by peer.
  func authenticate(name: String, password: [UInt8], peer: PeerAddress) async
    -> Result<Login, LoginRefusal>

  /// Finds the live ticket whose secret turns `challenge` into `response` and
  /// uses it up, durably, before it returns. Rate-limited by peer.
  func redeemTicket(challenge: [UInt8], response: [UInt8], peer: PeerAddress) async
    -> Result<Login, LoginRefusal>

  /// A login without password, where the configuration allows one: security
  /// type None for the user the configuration names.
  func authenticateWithoutPassword(user: UserName, peer: PeerAddress) async
    -> Result<Login, LoginRefusal>

  /// Whether any ticket lives: without one there is no use in offering VncAuth.
  func hasLiveTickets() async -> Bool

  /// An identity for the next viewer connection.
  func nextConnectionID() async -> ConnectionID

  /// Hands over an authenticated viewer. From here on the broker drives it: it
  /// shows progress, attaches it to the user's desktop, or closes it with the
  /// reason. Returns at once.
  func viewerArrived(_ viewer: any ViewerConnection, login: Login) async

  /// The viewer is gone, whatever the reason. Call exactly once per arrival.
  func viewerLeft(_ id: ConnectionID, reason: String) async

  /// The viewer asked through xvp.
  func viewerRequestedPower(_ id: ConnectionID, _ request: PowerRequest) async
}

public enum PowerRequest: String, Hashable, Sendable {
  case shutdown, reboot, reset
}

/// Where a viewer comes from, as a person reads it: address without port.
public struct PeerAddress: Hashable, Sendable, CustomStringConvertible {
  public let text: String
  /// What limits count by: the address itself, or the network that one host has all
  /// addresses of.
  public let network: String

  public init(_ text: String, network: String? = nil) {
    self.text = text
    self.network = network ?? text
  }

  public var description: String { text }
}

/// Who a viewer proved to be, and what was asked for.
public struct Login: Hashable, Sendable {
  public let user: UserName
  /// `nil`: whatever the user has, or may have.
  public let pool: PoolName?
  /// One of the user's own, if there is no such pool.
  public let desktop: DesktopID?
  public let peer: PeerAddress

  public init(
    user: UserName, pool: PoolName?, desktop: DesktopID? = nil, peer: PeerAddress
  ) {
    self.user = user
    self.pool = pool
    self.desktop = desktop
    self.peer = peer
  }
}

/// Why nobody was let in. The message may be sent to the viewer: it tells an
/// attacker nothing that the attempt did not.
public struct LoginRefusal: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Kind: String, Hashable, Sendable {
    case wrongPassword, noSuchTicket, disabled, lockedOut, notAllowed, unavailable
  }

  public let kind: Kind
  public let message: String

  public init(_ kind: Kind, _ message: String) {
    self.kind = kind
    self.message = message
  }

  public var description: String { message }
}
