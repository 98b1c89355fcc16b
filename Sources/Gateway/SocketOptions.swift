import Glibc
import NIOCore

extension Channel {
  /// Lets the kernel find viewers that vanished: after a minute of silence it asks
  /// three times in half a minute. Does nothing for sockets other than TCP.
  func setKeepAlive() throws {
    guard let options = syncOptions, remoteAddress?.port != nil else { return }
    try options.setOption(.socketOption(.so_keepalive), value: 1)
    try options.setOption(.tcp(TCP_KEEPIDLE), value: 60)
    try options.setOption(.tcp(TCP_KEEPINTVL), value: 10)
    try options.setOption(.tcp(TCP_KEEPCNT), value: 3)
  }
}

extension ChannelOption where Self == ChannelOptions.Types.SocketOption {
  /// An option of tcp(7) by its number.
  static func tcp(_ name: CInt) -> Self {
    .init(level: .tcp, name: .init(rawValue: name))
  }
}
