import LinuxSystem
import VNCServer

/// The control socket between `carreld` and its display process: one message in
/// UTF-8 per packet.
struct ControlChannel: Sendable {
  private let socket: UnixSocket

  init(_ socket: UnixSocket) {
    self.socket = socket
  }

  /// Carries out what `carreld` says until it hangs up.
  func serve(_ session: ViewerSession) {
    while let packet = try? socket.receive(), !packet.isEnd {
      if let command = DisplayCommand(packet: packet.bytes) { session.perform(command) }
    }
  }

  /// Tells `carreld`. One that does not listen any more is no error.
  func send(_ event: ViewerEvent) {
    let text =
      switch event {
      case .attached: "attached"
      case .waiting: "waiting"
      case .power(.shutdown): "power shutdown"
      case .power(.reboot): "power reboot"
      case .power(.reset): "power reset"
      case .closed(let reason): "closed \(reason)"
      }
    _ = try? socket.send(Array(text.utf8), blocking: false)
  }
}
