import Brokering
import NIOCore

/// A viewer joined to its display process, from login until either of them goes.
/// Belongs to the event loop that both channels share.
final class ViewerSession {
  private let desk: LoginDesk
  private let login: Login
  private let display: DisplayConnection
  private let peer: Peer
  private var hasEnded = false
  /// The broker is told of an arrival first and of the leaving after it.
  private var arrival: Task<Void, Never>?
  /// What the display process said before it closed.
  private var lastWords: String?

  init(desk: LoginDesk, login: Login, display: DisplayConnection, peer: Peer) {
    self.desk = desk
    self.login = login
    self.display = display
    self.peer = peer
  }

  /// Called on the viewer's event loop, which is the display channel's as well.
  func begin(
    replacing handler: LoginHandler, in context: ChannelHandlerContext, early: [UInt8]
  ) throws {
    let farewell = TimeAmount(desk.limits.stall)
    let viewerSide = RelayHandler(
      limits: .init(stall: TimeAmount(desk.limits.stall), farewell: farewell),
      reason: "the viewer closed the connection"
    ) { self.end($0) }
    let displaySide = RelayHandler(
      limits: .init(stall: nil, farewell: farewell), reason: "the display process ended"
    ) { self.end($0) }
    try context.channel.setKeepAlive()
    try context.pipeline.syncOperations.addHandler(viewerSide, position: .after(handler))
    let pipeline = display.channel.pipeline.syncOperations
    let greeter = try pipeline.handler(type: DisplayGreeter.self)
    try pipeline.addHandler(displaySide, position: .after(greeter))
    try display.reports.pipeline.syncOperations.addHandler(DisplayReports { self.report($0) })
    RelayHandler.pair(viewerSide, displaySide)
    context.pipeline.syncOperations.removeHandler(handler, promise: nil)
    pipeline.removeHandler(greeter, promise: nil)

    let viewer = Viewer(
      display, channel: context.channel, farewell: TimeAmount(desk.limits.farewell))
    arrival = Task { [desk, login] in await desk.arrived(viewer, login: login) }
    displaySide.begin(with: early)
    viewerSide.begin(with: [])
    display.reports.read()
  }

  private func report(_ report: DisplayReport) {
    switch report {
    case .attached, .waiting:
      desk.logger.debug("\(display.id): \(report)")
    case .power(let request):
      Task { [desk, id = display.id] in await desk.requested(request, by: id) }
    case .closed(let reason):
      lastWords = reason
    }
  }

  private func end(_ reason: String) {
    guard !hasEnded else { return }
    hasEnded = true
    let reason = lastWords ?? reason
    desk.logger.info(
      "viewer left",
      metadata: [
        "peer": "\(peer.address)", "user": "\(login.user)", "connection": "\(display.id)",
        "reason": "\(reason)",
      ])
    display.reports.close(promise: nil)
    desk.leave()
    Task { [desk, id = display.id, arrival] in
      await arrival?.value
      await desk.left(id, reason: reason)
    }
  }
}

/// Hears what the display process says, a packet at a time.
private final class DisplayReports: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let heard: (DisplayReport) -> Void

  init(_ heard: @escaping (DisplayReport) -> Void) { self.heard = heard }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let packet = Array(unwrapInboundIn(data).readableBytesView)
    if let report = DisplayReport(packet: packet) { heard(report) }
  }

  func channelReadComplete(context: ChannelHandlerContext) { context.read() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }
}
