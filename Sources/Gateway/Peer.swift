import Brokering
import NIOCore

/// Who is at the other end of a connection.
struct Peer: Sendable {
  let address: PeerAddress
  let isLoopback: Bool

  init(_ socket: SocketAddress?) {
    var text = socket?.ipAddress ?? "unknown"
    // A dual-stack socket shows IPv4 peers inside IPv6 addresses.
    if text.hasPrefix("::ffff:"), text.contains(".") { text.removeFirst("::ffff:".count) }
    address = PeerAddress(text)
    isLoopback = text == "::1" || text.hasPrefix("127.")
  }
}
