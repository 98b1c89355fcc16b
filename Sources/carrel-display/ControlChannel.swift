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
      take(String(decoding: packet.bytes, as: UTF8.self), session)
    }
  }

  private func take(_ message: String, _ session: ViewerSession) {
    let (verb, rest) = Self.split(message)
    switch verb {
    case "attach": session.attach(path: rest)
    case "detach": session.detach()
    case "status":
      let (percent, text) = Self.split(rest)
      session.show(status: text, percent: Int(percent))
    case "name": session.rename(rest)
    case "end": session.end(rest)
    default: break
    }
  }

  /// The first word, and what follows the space after it.
  private static func split(_ text: String) -> (String, String) {
    guard let space = text.firstIndex(of: " ") else { return (text, "") }
    return (String(text[..<space]), String(text[text.index(after: space)...]))
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
