import Brokering
import Logging
import NIOCore
import NIOSSL
import NIOTLS
import RFB

/// The shell around `ServerHandshake`: performs its actions on a channel, keeps its
/// deadlines, and makes way for a relay once the viewer is in.
final class LoginHandler: ChannelDuplexHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private enum State {
    case handshaking
    /// Waiting for the broker and the display process; nothing more is read.
    case verifying(Task<Void, Never>)
    /// Refused; the viewer is given time to read why.
    case lingering
    case finished
  }

  private let desk: LoginDesk
  private let peer: Peer
  private let transport: Transport
  private var handshake: ServerHandshake
  private var state = State.handshaking
  private var phase = ServerHandshake.Phase.negotiating
  private var deadline: Scheduled<Void>?
  private var admitted: (login: Login, display: DisplayConnection)?
  private var wantsRead = false
  /// Whether this connection holds one of the places for strangers. Whoever is refused
  /// holds it until the connection is gone.
  private var holdsPlace = true

  init(desk: LoginDesk, peer: Peer, transport: Transport) {
    self.desk = desk
    self.peer = peer
    self.transport = transport
    handshake = ServerHandshake(
      offer: SecurityOffer(transport: transport, policy: desk.configuration.policy),
      cryptography: desk.cryptography)
  }

  func handlerAdded(context: ChannelHandlerContext) {
    if context.channel.isActive { start(context) }
  }

  func channelActive(context: ChannelHandlerContext) {
    start(context)
    context.fireChannelActive()
  }

  func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }

  func read(context: ChannelHandlerContext) {
    switch state {
    case .handshaking, .lingering: context.read()
    case .verifying, .finished: wantsRead = true
    }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let buffer = unwrapInboundIn(data)
    switch state {
    case .handshaking, .verifying:
      // What is longer than the handshake keeps is refused by it; do not copy more.
      let kept = buffer.readableBytesView.prefix(ServerHandshake.memoryLimit + 1)
      feed(.received(Array(kept)), context)
    case .lingering, .finished: break
    }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case TLSUserEvent.handshakeCompleted = event { feed(.tlsEstablished, context) }
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    log(.info, "connection broke", ["reason": "\(error)"])
    context.close(promise: nil)
  }

  func channelInactive(context: ChannelHandlerContext) {
    deadline?.cancel()
    if case .handshaking = state { log(.info, "viewer left before login", [:]) }
    if case .verifying(let task) = state { task.cancel() }
    releasePlace()
    state = .finished
    context.fireChannelInactive()
  }
}

// MARK: - Handshake

extension LoginHandler {
  private func releasePlace() {
    guard holdsPlace else { return }
    holdsPlace = false
    desk.release(peer)
  }

  private func start(_ context: ChannelHandlerContext) {
    guard handshake.phase == .negotiating, deadline == nil else { return }
    armDeadline(context)
    feed(.connected, context)
  }

  private func feed(_ event: ServerHandshake.Event, _ context: ChannelHandlerContext) {
    for action in handshake.handle(event) { perform(action, context) }
    guard handshake.phase != phase else { return }
    phase = handshake.phase
    armDeadline(context)
  }

  private func armDeadline(_ context: ChannelHandlerContext) {
    deadline?.cancel()
    let limit: Duration
    switch phase {
    case .negotiating: limit = desk.limits.handshake
    case .awaitingPerson: limit = desk.limits.person
    case .verifying, .finished: return
    }
    let isolated = context.eventLoop.assumeIsolated()
    deadline = isolated.scheduleTask(in: TimeAmount(limit)) { [weak self] in
      self?.feed(.timedOut, context)
    }
  }

  private func perform(_ action: ServerHandshake.Action, _ context: ChannelHandlerContext) {
    switch action {
    case .send(let bytes):
      context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: bytes)), promise: nil)
    case .startTLS: startTLS(context)
    case .verify(let credentials): verify(credentials, context)
    case .relay(let bytes): relay(bytes, context)
    case .close(let error): refuse(error, context)
    }
  }

  private func startTLS(_ context: ChannelHandlerContext) {
    guard let tls = desk.tls else { return context.close(promise: nil) }
    do {
      try context.pipeline.syncOperations.addHandler(
        NIOSSLServerHandler(context: tls.veNCrypt), position: .first)
    } catch {
      log(.error, "TLS could not be started", ["reason": "\(error)"])
      context.close(promise: nil)
    }
  }

  private func refuse(_ error: HandshakeError, _ context: ChannelHandlerContext) {
    log(.notice, "viewer refused", ["reason": "\(error)", "kind": "\(error.kind)"])
    deadline?.cancel()
    state = .lingering
    let isolated = context.eventLoop.assumeIsolated()
    isolated.scheduleTask(in: TimeAmount(desk.limits.linger)) { context.close(promise: nil) }
    if wantsRead { context.read() }
  }
}

// MARK: - Login

extension LoginHandler {
  private func verify(
    _ credentials: ServerHandshake.Credentials, _ context: ChannelHandlerContext
  ) {
    let eventLoop = context.eventLoop
    let here = NIOLoopBound((handler: self, context: context), eventLoop: eventLoop)
    let task = Task { [desk, peer] in
      let result = await desk.login(credentials, peer: peer, on: eventLoop)
      eventLoop.execute { here.value.handler.verified(result, here.value.context) }
    }
    state = .verifying(task)
  }

  private func verified(
    _ result: Result<(Login, DisplayConnection), LoginRefusal>, _ context: ChannelHandlerContext
  ) {
    guard case .verifying = state, context.channel.isActive else {
      if case .success(let (_, display)) = result {
        display.close()
        desk.leave()
      }
      return
    }
    switch result {
    case .success(let (login, display)):
      admitted = (login, display)
      feed(.verdict(.accepted), context)
    case .failure(let refusal):
      feed(.verdict(.refused(reason: refusal.message)), context)
    }
  }

  /// Puts a relay in this handler's place and hands the viewer to the broker.
  private func relay(_ bytes: [UInt8], _ context: ChannelHandlerContext) {
    guard let (login, display) = admitted else { return context.close(promise: nil) }
    state = .finished
    deadline?.cancel()
    releasePlace()
    log(.info, "viewer logged in", ["user": "\(login.user)", "connection": "\(display.id)"])
    let session = ViewerSession(desk: desk, login: login, display: display, peer: peer)
    do {
      try session.begin(replacing: self, in: context, early: bytes)
    } catch {
      log(.error, "viewer could not be joined to its screen", ["reason": "\(error)"])
      display.close()
      desk.leave()
      context.close(promise: nil)
    }
  }

  private func log(
    _ level: Logger.Level, _ message: Logger.Message, _ details: Logger.Metadata
  ) {
    var metadata: Logger.Metadata = ["peer": "\(peer.address)"]
    if let version = handshake.version { metadata["rfb"] = "3.\(version.rawValue)" }
    if let type = handshake.securityType { metadata["security"] = "\(type.rawValue)" }
    if let subtype = handshake.subtype { metadata["subtype"] = "\(subtype.rawValue)" }
    desk.logger.log(
      level: level, message, metadata: metadata.merging(details) { _, detail in detail })
  }
}
