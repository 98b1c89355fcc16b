import NIOCore
import NIOWebSocket

/// Turns websocket frames into the byte stream that RFB is, and back.
package final class WebSocketBytes: ChannelDuplexHandler {
  package typealias InboundIn = WebSocketFrame
  package typealias InboundOut = ByteBuffer
  package typealias OutboundIn = ByteBuffer
  package typealias OutboundOut = WebSocketFrame

  private var saidGoodbye = false
  private var messageIsBinary = false
  /// The latest ping that came while nothing could be sent; only that one needs an answer.
  private var unansweredPing: ByteBuffer?

  package init() {}

  package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let frame = unwrapInboundIn(data)
    switch frame.opcode {
    case .binary:
      messageIsBinary = true
      context.fireChannelRead(wrapInboundOut(frame.unmaskedData))
    case .continuation where messageIsBinary:
      context.fireChannelRead(wrapInboundOut(frame.unmaskedData))
    case .ping:
      unansweredPing = frame.unmaskedData
      answerPing(context)
    case .pong:
      break
    case .connectionClose:
      goodbye(.normalClosure, context)
      context.close(promise: nil)
    default:
      // RFB is bytes; text is somebody else's protocol.
      goodbye(.unacceptableData, context)
      context.close(promise: nil)
    }
  }

  package func channelWritabilityChanged(context: ChannelHandlerContext) {
    answerPing(context)
    context.fireChannelWritabilityChanged()
  }

  private func answerPing(_ context: ChannelHandlerContext) {
    guard context.channel.isWritable, let data = unansweredPing else { return }
    unansweredPing = nil
    let pong = WebSocketFrame(fin: true, opcode: .pong, data: data)
    context.writeAndFlush(wrapOutboundOut(pong), promise: nil)
  }

  package func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?)
  {
    let frame = WebSocketFrame(fin: true, opcode: .binary, data: unwrapOutboundIn(data))
    context.write(wrapOutboundOut(frame), promise: promise)
  }

  package func close(
    context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?
  ) {
    goodbye(.normalClosure, context)
    context.close(mode: mode, promise: promise)
  }

  private func goodbye(_ code: WebSocketErrorCode, _ context: ChannelHandlerContext) {
    guard !saidGoodbye else { return }
    saidGoodbye = true
    var data = ByteBuffer()
    data.write(webSocketErrorCode: code)
    context.writeAndFlush(
      wrapOutboundOut(WebSocketFrame(fin: true, opcode: .connectionClose, data: data)),
      promise: nil)
  }
}
