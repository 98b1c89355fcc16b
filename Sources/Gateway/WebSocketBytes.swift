import NIOCore
import NIOWebSocket

/// Turns websocket frames into the byte stream that RFB is, and back.
final class WebSocketBytes: ChannelDuplexHandler {
  typealias InboundIn = WebSocketFrame
  typealias InboundOut = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = WebSocketFrame

  private var saidGoodbye = false
  private var messageIsBinary = false

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let frame = unwrapInboundIn(data)
    switch frame.opcode {
    case .binary:
      messageIsBinary = true
      context.fireChannelRead(wrapInboundOut(frame.unmaskedData))
    case .continuation where messageIsBinary:
      context.fireChannelRead(wrapInboundOut(frame.unmaskedData))
    case .ping:
      let pong = WebSocketFrame(fin: true, opcode: .pong, data: frame.unmaskedData)
      context.writeAndFlush(wrapOutboundOut(pong), promise: nil)
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

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    let frame = WebSocketFrame(fin: true, opcode: .binary, data: unwrapOutboundIn(data))
    context.write(wrapOutboundOut(frame), promise: promise)
  }

  func close(
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
