import Glibc
import Logging
import NIOCore

/// Pauses a listener that cannot accept, and says once that it does. Connections stay
/// in the kernel's queue meanwhile.
///
/// NIO's own back-off leaves the socket registered for reading after a failed accept,
/// and is woken for it again at once.
final class AcceptPause: ChannelInboundHandler {
  typealias InboundIn = any Channel

  private static let pause = TimeAmount.seconds(1)

  private let whom: String
  private let logger: Logger
  private var isFailing = false
  private var timer: Scheduled<Void>?

  init(_ whom: String, _ logger: Logger) {
    self.whom = whom
    self.logger = logger
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    guard error is IOError, context.channel.isActive else {
      return context.fireErrorCaught(error)
    }
    if !isFailing {
      isFailing = true
      logger.error(
        "\(whom) have to wait: \(Self.explain(error))", metadata: ["error": "\(error)"])
    }
    timer?.cancel()
    setReading(false, context)
    timer = context.eventLoop.assumeIsolated().scheduleTask(in: Self.pause) {
      self.resume(context)
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    timer?.cancel()
    context.fireChannelInactive()
  }

  /// All is well when nothing failed for as long as the pause was.
  private func resume(_ context: ChannelHandlerContext) {
    timer = context.eventLoop.assumeIsolated().scheduleTask(in: Self.pause) {
      self.isFailing = false
      self.logger.notice("\(self.whom) are let in again")
    }
    setReading(true, context)
  }

  private func setReading(_ isReading: Bool, _ context: ChannelHandlerContext) {
    try? context.channel.syncOptions?.setOption(.autoRead, value: isReading)
  }

  private static func explain(_ error: any Error) -> String {
    switch (error as? IOError)?.errnoCode {
    case EMFILE:
      "carreld may not open more files; raise its limit (LimitNOFILE) or lower gateway.viewers"
    case ENFILE: "the host may not open more files; raise fs.file-max"
    case ENOBUFS, ENOMEM: "the kernel has no memory for more connections"
    default: "connections cannot be accepted"
    }
  }
}
