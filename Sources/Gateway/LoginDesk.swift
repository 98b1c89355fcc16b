import Brokering
import LinuxSystem
import Logging
import NIOCore
import RFB

/// What every connection of a gateway shares: the broker, the limits and the books.
final class LoginDesk: Sendable {
  let configuration: GatewayConfiguration
  let tls: TLSContexts?
  let cryptography: any Cryptography
  let logger: Logger
  private let broker: any SessionBroker
  private let displays: any DisplayLauncher
  private let admission: Guarded<Admission>

  init(
    configuration: GatewayConfiguration, tls: TLSContexts?, cryptography: any Cryptography,
    broker: any SessionBroker, displays: any DisplayLauncher, logger: Logger
  ) {
    self.configuration = configuration
    self.tls = tls
    self.cryptography = cryptography
    self.broker = broker
    self.displays = displays
    self.logger = logger
    admission = Guarded(Admission(configuration.limits))
  }

  var limits: GatewayLimits { configuration.limits }

  /// Lets a new connection in, or says why not and has it closed.
  func admit(_ peer: Peer) -> Bool {
    guard let refusal = admission.withLock({ $0.admit(peer.address) }) else { return true }
    logger.notice(
      "connection refused", metadata: ["peer": "\(peer.address)", "reason": "\(refusal)"])
    return false
  }

  /// An admitted connection is gone, or no stranger any more.
  func release(_ peer: Peer) { admission.withLock { $0.release(peer.address) } }

  /// Someone who was admitted by `login` left.
  func leave() { admission.withLock { $0.leave() } }

  /// Finds out who it is and starts a display process for them on `eventLoop`.
  /// On success one seat is taken, to be given back with `leave`.
  func login(
    _ credentials: ServerHandshake.Credentials, peer: Peer, on eventLoop: any EventLoop
  ) async -> Result<(Login, DisplayConnection), LoginRefusal> {
    switch await identify(credentials, peer.address) {
    case .failure(let refusal): return .failure(refusal)
    case .success(let login):
      guard admission.withLock({ $0.seat() }) else {
        return .failure(
          LoginRefusal(.unavailable, "this host serves \(limits.viewers) viewers already"))
      }
      do {
        return .success((login, try await startDisplay(on: eventLoop)))
      } catch {
        leave()
        logger.error("no display process", metadata: ["error": "\(error)"])
        return .failure(
          LoginRefusal(.unavailable, "the screen could not be started; try again later"))
      }
    }
  }

  func arrived(_ viewer: Viewer, login: Login) async {
    await broker.viewerArrived(viewer, login: login)
  }

  func left(_ id: ConnectionID, reason: String) async {
    await broker.viewerLeft(id, reason: reason)
  }

  func requested(_ power: PowerRequest, by id: ConnectionID) async {
    await broker.viewerRequestedPower(id, power)
  }

  private func identify(
    _ credentials: ServerHandshake.Credentials, _ peer: PeerAddress
  ) async -> Result<Login, LoginRefusal> {
    switch credentials {
    case .password(let user, let password):
      return await broker.authenticate(name: user, password: password, peer: peer)
    case .ticket(let challenge, let response):
      return await broker.redeemTicket(challenge: challenge, response: response, peer: peer)
    case .nobody:
      guard let user = configuration.passwordlessUser else {
        return .failure(LoginRefusal(.notAllowed, "a password is needed here"))
      }
      return await broker.authenticateWithoutPassword(user: user, peer: peer)
    }
  }

  private func startDisplay(on eventLoop: any EventLoop) async throws -> DisplayConnection {
    let id = await broker.nextConnectionID()
    let endpoint = try await displays.launch(for: id)
    do {
      return try await DisplayConnection.connect(
        endpoint, id: id, on: eventLoop, within: limits.display)
    } catch {
      endpoint.control.shutDown()
      throw error
    }
  }
}
