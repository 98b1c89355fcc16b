import Brokering
import Glibc
import NIOCore

/// Who is at the other end of a connection.
package struct Peer: Sendable {
  package let address: PeerAddress
  package let isLoopback: Bool

  package init(_ socket: SocketAddress?) {
    var text = socket?.ipAddress ?? "unknown"
    // A dual-stack socket shows IPv4 peers inside IPv6 addresses.
    let isMapped = text.hasPrefix("::ffff:") && text.contains(".")
    if isMapped { text.removeFirst("::ffff:".count) }
    isLoopback = text == "::1" || text.hasPrefix("127.")
    if case .v6(let address) = socket, !isMapped {
      self.address = PeerAddress(text, network: Self.network(of: address.address.sin6_addr.bytes))
    } else {
      address = PeerAddress(text)
    }
  }

  /// The first 64 bits: a host may use any number of addresses that begin so.
  private static func network(of bytes: [UInt8]) -> String {
    let groups = stride(from: 0, to: 8, by: 2).map { index in
      String(UInt16(bytes[index]) << 8 | UInt16(bytes[index + 1]), radix: 16)
    }
    return groups.joined(separator: ":") + "::/64"
  }
}

extension in6_addr {
  fileprivate var bytes: [UInt8] {
    // SAFETY: sixteen bytes of plain data, copied within the call.
    withUnsafeBytes(of: self) { Array($0) }
  }
}
