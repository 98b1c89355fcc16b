import Display
import LinuxSystem

/// The thread that reads a viewer. Keys and pointer leave from here for the VMM;
/// everything else goes to the encoder's thread.
struct ViewerInput {
  /// What may wait for the encoder, in messages and in their bytes: more is a flood.
  private static let maximumWaiting = (messages: 8192, bytes: 4 << 20)

  private let viewer: ViewerSocket
  private let router: InputRouter
  private let commands: Mailbox<ViewerSession.Command>
  private let writer: Thread

  init(
    _ viewer: ViewerSocket, _ router: InputRouter, _ commands: Mailbox<ViewerSession.Command>,
    _ writer: Thread
  ) {
    self.writer = writer
    self.viewer = viewer
    self.router = router
    self.commands = commands
  }

  /// Reads until the viewer is gone; returns why.
  func run() -> String {
    do {
      let poller = try Poller()
      try poller.add(viewer.descriptor, token: 0)
      try poller.add(viewer.timer, token: 1)
      var parser = ClientMessageParser()
      while true {
        for event in try poller.wait() {
          guard event.token == 0 else {
            viewer.checkProgress(of: writer)
            continue
          }
          do {
            let bytes = try viewer.descriptor.read(upTo: 65536)
            if bytes.isEmpty { return "the viewer disconnected" }
            for message in try parser.take(bytes) where !take(message) {
              return "the viewer sends faster than it can be served"
            }
          } catch let error as SystemError where error.kind == .wouldBlock {
            continue
          }
        }
      }
    } catch {
      return "\(error)"
    }
  }

  /// `false` when too much waits.
  private func take(_ message: ClientMessage) -> Bool {
    if message.isPress, router.awaitsDismissal { commands.post(.dismissed) }
    switch message {
    case .key(let keysym, let pressed):
      router.key(keysym: keysym, pressed: pressed)
    case .extendedKey(let keysym, let keycode, let pressed):
      router.key(keysym: keysym, scanCode: keycode, pressed: pressed)
    case .pointer(let buttons, let x, let y):
      router.pointer(buttons: buttons, x: x, y: y)
      if router.isCursorPainted { return post(message) }
    default: return post(message)
    }
    return true
  }

  private func post(_ message: ClientMessage) -> Bool {
    let waiting = commands.post(.message(message), bytes: message.size)
    return waiting.count <= Self.maximumWaiting.messages
      && waiting.bytes <= Self.maximumWaiting.bytes
  }
}

extension ClientMessage {
  /// Of a key or a button; a release may belong to what was pressed before.
  fileprivate var isPress: Bool {
    switch self {
    case .key(_, let pressed), .extendedKey(_, _, let pressed): pressed
    case .pointer(let buttons, _, _): buttons != 0
    default: false
    }
  }
}
