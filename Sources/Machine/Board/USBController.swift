import DeviceModel
import Devices

/// The USB controller of a board, with the tablet and the keyboard on its ports.
final class USBController {
  static let slot = PCISlot(device: 14)

  let controller: XHCI
  let keyboard: USBKeyboard
  private let tablet: USBTablet

  init(
    _ memory: MachineMemory, _ messages: MessageVectors, _ clock: any DeviceClock,
    saved: BoardArchive
  ) throws {
    tablet = USBTablet(state: try saved.state("usb-tablet"))
    keyboard = USBKeyboard(clock: clock, state: try saved.state("usb-keyboard"))
    controller = XHCI(
      devices: [tablet, keyboard], memory: memory, messages: messages, clock: clock,
      log: StandardError.limited(), state: try saved.state("xhci"))
  }

  /// While the guest has drivers for them.
  var inputSinks: [any InputSink] { [tablet, keyboard] }

  /// The controller's reset is one of its ports, and so of what is on them.
  var parts: [BoardPart] {
    [
      BoardPart("usb-tablet", tablet), BoardPart("usb-keyboard", keyboard),
      BoardPart("xhci", controller),
    ]
  }
}

extension Board {
  /// The lights of the keyboard that keys go to.
  var leds: KeyboardLEDs {
    if let keyboard = usb?.keyboard, keyboard.isUsed { return keyboard.leds }
    return keyboardController.leds
  }

  /// Has `told` called, device lock held, when the guest sets a keyboard's lights.
  func setLEDObserver(_ told: @escaping (KeyboardLEDs) -> Void) {
    keyboardController.onLEDs = { [unowned self] _ in told(leds) }
    usb?.keyboard.onLEDs = { [unowned self] _ in told(leds) }
  }
}
