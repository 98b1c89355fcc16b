import Brokering
import Glibc
import LinuxSystem
import NIOCore
import NIOPosix
import RFB

/// A display process that has greeted: ready for ClientInit, reading on hold until
/// it is paired with a viewer.
struct DisplayConnection: Sendable {
  let id: ConnectionID
  let channel: any Channel
  let control: UnixSocket
  let reports: any Channel

  /// Ends the display process.
  func close() {
    channel.close(promise: nil)
    reports.close(promise: nil)
    control.shutDown()
  }

  /// Takes over the endpoint's sockets on `eventLoop` and performs the handshake.
  static func connect(
    _ endpoint: DisplayEndpoint, id: ConnectionID, on eventLoop: any EventLoop,
    within limit: Duration
  ) async throws -> DisplayConnection {
    let greeted = eventLoop.makePromise(of: Void.self)
    let channel: any Channel
    do {
      channel = try await ClientBootstrap(group: eventLoop)
        .channelOption(.writeBufferWaterMark, value: RelayHandler.waterMark)
        .channelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(
              DisplayGreeter(greeted: greeted, limit: limit))
          }
        }
        .withConnectedSocket(try ownedCopy(of: endpoint.viewer))
        .get()
    } catch {
      greeted.fail(error)
      throw error
    }
    do {
      try await greeted.futureResult.get()
      // Packets, not a stream: one read gives one packet, so that a buffer of one
      // packet's size keeps the boundaries.
      let reports = try await NIOPipeBootstrap(group: eventLoop)
        .channelOption(
          .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: DisplayMessage.limit)
        )
        .channelOption(.autoRead, value: false)
        .takingOwnershipOfDescriptor(input: ownedCopy(of: endpoint.control.descriptor))
        .get()
      return DisplayConnection(
        id: id, channel: channel, control: endpoint.control, reports: reports)
    } catch {
      channel.close(promise: nil)
      throw error
    }
  }

  /// A descriptor that NIO will close, for the same open socket.
  private static func ownedCopy(of descriptor: LinuxSystem.FileDescriptor) throws -> CInt {
    let copy = fcntl(descriptor.raw, F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 else {
      throw SystemError(code: errno, "duplicate a display process's socket")
    }
    return copy
  }
}

/// Speaks the client's part of the handshake, then reads nothing until it is
/// replaced by a relay.
final class DisplayGreeter: ChannelDuplexHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private var handshake = ClientHandshake()
  private var greeted: EventLoopPromise<Void>?
  private let limit: Duration
  private var deadline: Scheduled<Void>?

  init(greeted: EventLoopPromise<Void>, limit: Duration) {
    self.greeted = greeted
    self.limit = limit
  }

  func handlerAdded(context: ChannelHandlerContext) {
    let isolated = context.eventLoop.assumeIsolated()
    deadline = isolated.scheduleTask(in: TimeAmount(limit)) { [self] in
      finish(.failure(GatewayError(.display, "the display process did not greet in \(limit)")))
      context.close(promise: nil)
    }
  }

  func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }

  func read(context: ChannelHandlerContext) {
    if !handshake.isFinished { context.read() }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let bytes = Array(unwrapInboundIn(data).readableBytesView)
    for action in handshake.receive(bytes) {
      switch action {
      case .send(let reply):
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: reply)), promise: nil)
      case .relay(let early):
        // A server speaks again only after ClientInit.
        guard early.isEmpty else {
          finish(.failure(GatewayError(.display, "the display process spoke out of turn")))
          return context.close(promise: nil)
        }
        finish(.success(()))
      case .close(let error):
        finish(.failure(GatewayError(.display, "the display process is unusable", cause: error)))
        context.close(promise: nil)
      }
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    finish(.failure(GatewayError(.display, "the display process ended before it greeted")))
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    finish(.failure(error))
    context.close(promise: nil)
  }

  private func finish(_ result: Result<Void, any Error>) {
    deadline?.cancel()
    greeted?.completeWith(result)
    greeted = nil
  }
}
