import DeviceModel
import Display
import LinuxSystem

/// Where a viewer's keys and pointer go, shared by the thread that reads them and
/// the one that knows the picture.
final class InputRouter: Sendable {
  private struct State {
    var send: (@Sendable (DisplayLinkMessage) -> Void)?
    var viewport: Viewport?
    var keys: KeyTranslator
    var buttons: UInt8 = 0
    var pointer: (x: Int, y: Int) = (0, 0)
    var isCursorPainted = false
    var awaitsDismissal = false
  }

  private let state: Guarded<State>

  init(layout: KeyboardLayout) {
    state = Guarded(State(keys: KeyTranslator(layout: layout)))
  }

  /// Input goes here from now on; what is held down is let go of first.
  func connect(_ send: (@Sendable (DisplayLinkMessage) -> Void)?) {
    state.withLock { state in
      for (code, pressed) in state.keys.releaseAll() { state.send?(.key(code, pressed: pressed)) }
      state.send = send
    }
  }

  func setViewport(_ viewport: Viewport?) {
    state.withLock { $0.viewport = viewport }
  }

  func setLayout(_ layout: KeyboardLayout) {
    state.withLock { state in
      for (code, pressed) in state.keys.change(to: layout) {
        state.send?(.key(code, pressed: pressed))
      }
    }
  }

  func setLEDs(_ leds: KeyboardLEDs) {
    state.withLock { $0.keys.leds = leds }
  }

  /// Whether the encoder paints the pointer and so has to know that it moved.
  var isCursorPainted: Bool {
    get { state.withLock { $0.isCursorPainted } }
    set { state.withLock { $0.isCursorPainted = newValue } }
  }

  /// From now on there is nothing but the reason for the end, which a key closes.
  func awaitDismissal() { state.withLock { $0.awaitsDismissal = true } }
  var awaitsDismissal: Bool { state.withLock { $0.awaitsDismissal } }

  /// Where the viewer's pointer was last, in its own pixels.
  var pointerPosition: (x: Int, y: Int) { state.withLock { $0.pointer } }

  func key(keysym: UInt32, pressed: Bool) {
    state.withLock { state in
      for (code, pressed) in state.keys.translate(keysym: keysym, pressed: pressed) {
        state.send?(.key(code, pressed: pressed))
      }
    }
  }

  func key(keysym: UInt32, scanCode: UInt32, pressed: Bool) {
    state.withLock { state in
      let keys =
        KeyCode(extendedKeyEvent: scanCode).map {
          state.keys.translate(code: $0, pressed: pressed)
        } ?? state.keys.translate(keysym: keysym, pressed: pressed)
      for (code, pressed) in keys { state.send?(.key(code, pressed: pressed)) }
    }
  }

  /// `buttons` as in RFB: left, middle, right, wheel up, down, left, right, side.
  func pointer(buttons: UInt8, x: Int, y: Int) {
    state.withLock { state in
      state.pointer = (x, y)
      let pressed = buttons & ~state.buttons
      state.buttons = buttons
      guard let viewport = state.viewport, let send = state.send else { return }
      let position = viewport.guestPosition(x: x, y: y)
      var held: PointerButtons = []
      if buttons & 1 != 0 { held.insert(.left) }
      if buttons & 2 != 0 { held.insert(.middle) }
      if buttons & 4 != 0 { held.insert(.right) }
      if buttons & 128 != 0 { held.insert(.side) }
      send(
        .pointer(x: position.x, y: position.y, buttons: held, wheel: 0, horizontalWheel: 0))
      let wheel = (pressed & 8 != 0 ? 1 : 0) - (pressed & 16 != 0 ? 1 : 0)
      let horizontal = (pressed & 64 != 0 ? 1 : 0) - (pressed & 32 != 0 ? 1 : 0)
      guard wheel != 0 || horizontal != 0 else { return }
      send(
        .pointer(
          x: position.x, y: position.y, buttons: held, wheel: Int8(wheel),
          horizontalWheel: Int8(horizontal)))
    }
  }
}

extension KeyCode {
  /// The key of a QEMU extended key event: a set-1 code, with bit 7 for the E0
  /// prefix. `nil` for none.
  package init?(extendedKeyEvent code: UInt32) {
    switch code {
    case 0, 0x80: return nil
    // Pause and Print Screen have sequences of their own on a PC keyboard; 0xC6 is
    // E0 46, the Break that Ctrl+Pause sends, which viewers use for Pause.
    case 0xC6, 0xE046, 0xE11D: self.init(0xE11D)
    case 0x54, 0xB7, 0xE037: self.init(0xE037)
    case 1...0x7F: self.init(UInt16(code))
    case 0x81...0xFF: self.init(0xE000 | UInt16(code & 0x7F))
    case 0xE001...0xE07F: self.init(UInt16(code))
    default: return nil
    }
  }
}
