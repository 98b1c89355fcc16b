import Brokering
import LinuxSystem
import NIOCore

/// A viewer that logged in, with its display process, as the broker drives it.
final class Viewer: ViewerConnection {
  let id: ConnectionID
  private let channel: any Channel
  private let control: UnixSocket
  private let farewell: TimeAmount
  private let isClosing = Guarded(false)

  init(_ display: DisplayConnection, channel: any Channel, farewell: TimeAmount) {
    id = display.id
    control = display.control
    self.channel = channel
    self.farewell = farewell
  }

  func attach(displayLink path: String) { send(.attach(displayLink: path)) }
  func setKeyboardLayout(_ layout: String) { send(.layout(layout)) }
  func detach() { send(.detach) }
  func showStatus(_ text: String, percent: Int?) { send(.status(text, percent: percent)) }
  func setName(_ name: String) { send(.name(name)) }

  func close(telling text: String) {
    send(.end(text))
    isClosing.withLock { $0 = true }
    // The display process closes when the text was seen; this is for one that hangs.
    let channel = self.channel
    guard channel.isActive else { return }
    channel.eventLoop.scheduleTask(in: farewell) { channel.close(promise: nil) }
  }

  /// Never waits: a display process that leaves its messages unread is stuck, and
  /// one that is gone takes its viewer along.
  private func send(_ message: DisplayMessage) {
    guard !isClosing.withLock({ $0 }) else { return }
    do {
      try control.send(message.packet, blocking: false)
    } catch {
      // The broker may speak when the gateway, and its event loops, have ended.
      if channel.isActive { channel.close(promise: nil) }
    }
  }
}
