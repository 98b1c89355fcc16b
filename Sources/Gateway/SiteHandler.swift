import NIOCore
import NIOHTTP1

/// Answers plain HTTP requests with the files of the site. Removed when the
/// connection becomes a websocket.
final class SiteHandler: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  /// How much of a page is on its way at once.
  private static let portion = 64 << 10

  private let site: StaticSite
  private let desk: LoginDesk
  private let peer: Peer
  private var request: HTTPRequestHead?
  private var deadline: Scheduled<Void>?
  private var isReplaced = false

  init(site: StaticSite, desk: LoginDesk, peer: Peer) {
    self.site = site
    self.desk = desk
    self.peer = peer
  }

  func handlerAdded(context: ChannelHandlerContext) { armDeadline(context) }

  /// From here on the login handler keeps the time and the books.
  func handlerRemoved(context: ChannelHandlerContext) {
    deadline?.cancel()
    isReplaced = context.channel.isActive
  }

  func channelInactive(context: ChannelHandlerContext) {
    deadline?.cancel()
    if !isReplaced { desk.release(peer) }
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    desk.logger.debug(
      "browser connection broke", metadata: ["peer": "\(peer.address)", "reason": "\(error)"])
    context.close(promise: nil)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head): request = head
    case .body: break
    case .end:
      guard let head = request else { return }
      request = nil
      answer(head, context)
    }
  }

  /// A connection that asks for nothing, or does not take what it asked for, is
  /// closed; one that reads files may go on.
  private func armDeadline(_ context: ChannelHandlerContext) {
    deadline?.cancel()
    let limit = TimeAmount(desk.limits.handshake)
    deadline = context.eventLoop.assumeIsolated().scheduleTask(in: limit) {
      context.close(promise: nil)
    }
  }

  private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
    let path = head.uri.prefix { $0 != "?" }
    switch head.method {
    case .GET, .HEAD:
      if path == "/" {
        respond(.found, ["Location": StaticSite.startPage], nil, to: head, context)
      } else if path == WebPipeline.webSocketPath {
        let text = "this address is for a websocket of the same site"
        respond(.upgradeRequired, ["Upgrade": "websocket"], plain(text), to: head, context)
      } else if let page = site.page(for: head.uri) {
        respond(.ok, [:], page, to: head, context)
      } else {
        respond(.notFound, [:], plain("no such page"), to: head, context)
      }
    default:
      respond(
        .methodNotAllowed, ["Allow": "GET, HEAD"], plain("only GET and HEAD"), to: head, context)
    }
  }

  private func plain(_ text: String) -> StaticSite.Page {
    StaticSite.Page(type: "text/plain; charset=utf-8", bytes: ByteBuffer(string: text + "\n"))
  }

  private func respond(
    _ status: HTTPResponseStatus, _ extra: HTTPHeaders, _ page: StaticSite.Page?,
    to head: HTTPRequestHead, _ context: ChannelHandlerContext
  ) {
    var headers = extra
    headers.add(name: "Content-Length", value: String(page?.bytes.readableBytes ?? 0))
    if let page { headers.add(name: "Content-Type", value: page.type) }
    headers.add(name: "X-Content-Type-Options", value: "nosniff")
    headers.add(name: "X-Frame-Options", value: "DENY")
    headers.add(name: "Referrer-Policy", value: "no-referrer")
    headers.add(name: "Cache-Control", value: "no-cache")
    if !head.isKeepAlive { headers.add(name: "Connection", value: "close") }
    let response = HTTPResponseHead(version: head.version, status: status, headers: headers)
    let body = head.method == .HEAD ? nil : page?.bytes
    send(.head(response), then: body ?? ByteBuffer(), isLast: !head.isKeepAlive, context)
  }

  /// Sends one part and, once it is written, what follows. The answer's end is what lets
  /// the pipeline take the next request, so a client that asks without reading makes
  /// one portion wait and no more.
  private func send(
    _ part: HTTPServerResponsePart, then rest: ByteBuffer, isLast: Bool,
    _ context: ChannelHandlerContext
  ) {
    armDeadline(context)
    let written = context.eventLoop.makePromise(of: Void.self)
    let isolated = context.eventLoop.assumeIsolated()
    written.futureResult.assumeIsolated().whenSuccess {
      // Many requests may wait: not one inside the other.
      isolated.execute { self.proceed(with: rest, isLast: isLast, context) }
    }
    context.writeAndFlush(wrapOutboundOut(part), promise: written)
  }

  private func proceed(with rest: ByteBuffer, isLast: Bool, _ context: ChannelHandlerContext) {
    guard context.channel.isActive else { return }
    var rest = rest
    if let portion = rest.readSlice(length: min(Self.portion, rest.readableBytes)),
      portion.readableBytes > 0
    {
      return send(.body(.byteBuffer(portion)), then: rest, isLast: isLast, context)
    }
    let sent = context.eventLoop.makePromise(of: Void.self)
    if isLast {
      sent.futureResult.assumeIsolated().whenComplete { _ in context.close(promise: nil) }
    }
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: sent)
  }
}
