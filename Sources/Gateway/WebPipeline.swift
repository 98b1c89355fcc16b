import NIOCore
import NIOHTTP1
import NIOSSL
import NIOWebSocket
import RFB

/// Sets up a browser's connection: TLS where configured, HTTP for the files, and a
/// websocket that carries RFB.
enum WebPipeline {
  static let webSocketPath = "/websockify"
  /// noVNC sends at most 10 KiB at once.
  static let frameLimit = 64 << 10
  private static let siteHandler = "carrel.site"

  static func configure(
    _ channel: any Channel, desk: LoginDesk, site: StaticSite, tls: NIOSSLContext?, peer: Peer
  ) throws {
    let pipeline = channel.pipeline.syncOperations
    if let tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls)) }
    let transport = Transport.webSocket(encrypted: tls != nil, loopback: peer.isLoopback)
    let upgrader = NIOWebSocketServerUpgrader(
      maxFrameSize: frameLimit,
      shouldUpgrade: { channel, head in
        channel.eventLoop.makeSucceededFuture(WebSocketPolicy.response(to: head))
      },
      upgradePipelineHandler: { channel, _ in
        channel.eventLoop.makeCompletedFuture {
          let pipeline = channel.pipeline.syncOperations
          try pipeline.addHandler(WebSocketBytes())
          try pipeline.addHandler(LoginHandler(desk: desk, peer: peer, transport: transport))
        }
      })
    try pipeline.configureHTTPServerPipeline(
      withServerUpgrade: (
        upgraders: [upgrader],
        completionHandler: { context in
          context.pipeline.syncOperations.removeHandler(name: siteHandler, promise: nil)
        }
      ))
    try pipeline.addHandler(
      SiteHandler(site: site, desk: desk, peer: peer), name: siteHandler)
  }
}

/// Which requests for a websocket are met.
enum WebSocketPolicy {
  /// The headers of the answer; `nil` refuses.
  ///
  /// noVNC 1.3 asks for no subprotocol, older ones for `binary`. A page from
  /// another site may not use a visitor's browser to reach this gateway.
  static func response(to head: HTTPRequestHead) -> HTTPHeaders? {
    guard head.uri.prefix(while: { $0 != "?" }) == WebPipeline.webSocketPath else { return nil }
    if let origin = head.headers.first(name: "Origin") {
      guard let host = head.headers.first(name: "Host"),
        origin == "https://" + host || origin == "http://" + host
      else { return nil }
    }
    let offered = head.headers[canonicalForm: "Sec-WebSocket-Protocol"]
    if offered.isEmpty { return [:] }
    return offered.contains("binary") ? ["Sec-WebSocket-Protocol": "binary"] : nil
  }
}
