import Glibc
import NIOCore
import NIOSSL

/// One half of a pair that hands bytes from one channel to another, on one event
/// loop. A channel is read only while the other can be written to, so what is kept
/// is bounded by one read and the water mark, and a slow viewer slows its own
/// display process and nobody else.
final class RelayHandler: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  /// Small, so that what the display process sends next is never far from the wire.
  static let waterMark = ChannelOptions.Types.WriteBufferWaterMark(low: 32 << 10, high: 64 << 10)

  /// How this half may end.
  struct Limits {
    /// Longest time without the peer taking a byte of what waits; `nil`: for ever.
    let stall: TimeAmount?
    /// Time to get the last bytes out once the other side is gone.
    let farewell: TimeAmount
  }

  private let limits: Limits
  private let ended: (String) -> Void
  private var partner: RelayHandler?
  private var context: ChannelHandlerContext?
  private var wantsRead = false
  private var stallCheck: Scheduled<Void>?
  private var reason: String

  /// - Parameters:
  ///   - reason: why the pair ended when this channel closes by itself.
  ///   - ended: called once per half, with the reason.
  init(limits: Limits, reason: String, ended: @escaping (String) -> Void) {
    self.limits = limits
    self.reason = reason
    self.ended = ended
  }

  static func pair(_ first: RelayHandler, _ second: RelayHandler) {
    first.partner = second
    second.partner = first
  }

  /// Sends bytes that were received before the pair was made, then begins to read.
  func begin(with bytes: [UInt8]) {
    guard let context else { return }
    if !bytes.isEmpty {
      context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: bytes)), promise: nil)
    }
    context.read()
  }

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) {
    self.context = nil
    stallCheck?.cancel()
    partner = nil
  }

  func read(context: ChannelHandlerContext) {
    if partner?.isWritable == false {
      wantsRead = true
    } else {
      context.read()
    }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    partner?.write(data)
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    partner?.flush()
    context.fireChannelReadComplete()
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    if context.channel.isWritable {
      stallCheck?.cancel()
      stallCheck = nil
      partner?.resumeReading()
    } else {
      watchForStall(context)
    }
    context.fireChannelWritabilityChanged()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if !Self.isOrdinaryEnd(error) { reason = "\(reason): \(error)" }
    context.close(promise: nil)
  }

  /// Most viewers end TLS by closing the socket, and some by dropping it.
  private static func isOrdinaryEnd(_ error: any Error) -> Bool {
    if case NIOSSLError.uncleanShutdown = error { return true }
    guard let error = error as? IOError else { return false }
    return error.errnoCode == ECONNRESET || error.errnoCode == EPIPE
  }

  func channelInactive(context: ChannelHandlerContext) {
    stallCheck?.cancel()
    let other = partner
    partner = nil
    ended(reason)
    other?.partnerEnded()
    context.fireChannelInactive()
  }
}

// MARK: - Called by the other half

extension RelayHandler {
  private var isWritable: Bool { context?.channel.isWritable ?? false }

  private func write(_ data: NIOAny) {
    context?.write(data, promise: nil)
  }

  private func flush() { context?.flush() }

  private func resumeReading() {
    guard wantsRead else { return }
    wantsRead = false
    context?.read()
  }

  /// Gets the last bytes out, if the peer takes them in time, and closes.
  private func partnerEnded() {
    partner = nil
    guard let context else { return }
    let isolated = context.eventLoop.assumeIsolated()
    let deadline = isolated.scheduleTask(in: limits.farewell) { context.close(promise: nil) }
    let flushed = context.eventLoop.makePromise(of: Void.self)
    flushed.futureResult.assumeIsolated().whenComplete { _ in
      deadline.cancel()
      context.close(promise: nil)
    }
    context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: flushed)
  }
}

// MARK: - Stalls

extension RelayHandler {
  /// A full channel must lose at least a byte in each period.
  private func watchForStall(_ context: ChannelHandlerContext, last: Int = .max) {
    guard let stall = limits.stall, context.channel.isActive else { return }
    let waiting =
      (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    guard waiting < last else {
      reason = "it stopped reading"
      return context.close(promise: nil)
    }
    stallCheck = context.eventLoop.assumeIsolated().scheduleTask(in: stall) { [weak self] in
      self?.watchForStall(context, last: waiting)
    }
  }
}
