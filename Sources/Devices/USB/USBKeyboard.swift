import DeviceModel

/// A boot keyboard (HID 1.11, appendix B): six keys at once beside the modifiers, and
/// three lights.
package final class USBKeyboard: HIDFunction, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var hid = HIDState()
    var modifiers: UInt8 = 0
    /// Usages of the other keys that are down, in the order they went down.
    var keys: [UInt8] = []
    var leds = KeyboardLEDs()
    /// When the present report is told again.
    var idleDeadline: UInt64?
  }

  /// ErrorRollOver, in place of each key when there are too many.
  private static let rollOver: UInt8 = 0x01
  private static let reportedKeys = 6
  private static let modifierUsages: ClosedRange<UInt8> = 0xE0...0xE7
  /// No keyboard has more keys.
  private static let mostKeys = 256
  private static let idleUnit: UInt64 = 4_000_000

  /// Modifiers as bits, five lights with three bits to spare, an array of six keys. The
  /// boot protocol's report is the same.
  private static let reportDescriptor: [UInt8] = [
    0x05, 0x01,  // Usage Page (Generic Desktop)
    0x09, 0x06,  // Usage (Keyboard)
    0xA1, 0x01,  // Collection (Application)
    0x05, 0x07, 0x19, 0xE0, 0x29, 0xE7,  // Usage Page (Keyboard), the modifiers
    0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02,  // Input (Data, Variable)
    0x95, 0x01, 0x75, 0x08, 0x81, 0x01,  // Input (Constant), a byte
    0x05, 0x08, 0x19, 0x01, 0x29, 0x05,  // Usage Page (LEDs), Num Lock … Kana
    0x95, 0x05, 0x75, 0x01, 0x91, 0x02,  // Output (Data, Variable)
    0x95, 0x01, 0x75, 0x03, 0x91, 0x01,  // Output (Constant), 3 bits
    0x05, 0x07, 0x19, 0x00, 0x2A, 0xFF, 0x00,  // Usage Page (Keyboard), all
    0x15, 0x00, 0x26, 0xFF, 0x00, 0x75, 0x08, 0x95, 0x06, 0x81, 0x00,  // Input (Array)
    0xC0,  // End Collection
  ]

  let descriptors = HIDDescriptors(
    product: "Carrel USB Keyboard", serial: "2", subclass: 1, interfaceProtocol: 1,
    report: USBKeyboard.reportDescriptor)
  package let speed = USBSpeed.high
  package weak var host: (any USBHost)?
  /// Called, device lock held, when the guest sets the keyboard's lights.
  package var onLEDs: (KeyboardLEDs) -> Void = { _ in }

  private let clock: any DeviceClock
  private var state: State
  private lazy var idleTimer = clock.makeTimer { [weak self] in self?.repeatReport() }
  var hid: HIDState {
    get { state.hid }
    set { state.hid = newValue }
  }

  package init(clock: any DeviceClock, state: State?) {
    self.clock = clock
    self.state = state ?? State()
    if let deadline = self.state.idleDeadline { idleTimer.arm(at: deadline) }
  }

  package func saveState() -> State { state }

  package func reset() {
    resetBus()
    idleTimer.cancel()
  }

  /// The lights as the guest set them last.
  package var leds: KeyboardLEDs { state.leds }
  /// Whether the guest's driver takes keys from here.
  package var isUsed: Bool { isInUse }

  // MARK: Reports

  var currentReport: [UInt8] {
    let keys = state.keys
    let shown =
      keys.count > Self.reportedKeys
      ? Array(repeating: Self.rollOver, count: Self.reportedKeys)
      : keys + Array(repeating: 0, count: Self.reportedKeys - keys.count)
    return [state.modifiers, 0] + shown
  }

  var outputReport: [UInt8]? {
    let leds = state.leds
    return [
      (leds.contains(.numLock) ? 1 : 0) | (leds.contains(.capsLock) ? 2 : 0)
        | (leds.contains(.scrollLock) ? 4 : 0)
    ]
  }

  func setOutput(_ report: [UInt8]) -> Bool {
    guard let byte = report.first else { return false }
    var leds = KeyboardLEDs()
    if byte & 1 != 0 { leds.insert(.numLock) }
    if byte & 2 != 0 { leds.insert(.capsLock) }
    if byte & 4 != 0 { leds.insert(.scrollLock) }
    show(leds)
    return true
  }

  private func show(_ leds: KeyboardLEDs) {
    state.leds = leds
    onLEDs(leds)
  }

  func releaseAll() {
    state.modifiers = 0
    state.keys = []
    if !state.leds.isEmpty { show([]) }
    restartIdle()
  }

  // MARK: Idle rate

  func restartIdle() {
    idleTimer.cancel()
    state.idleDeadline = nil
    guard hid.idle != 0, hid.configuration != 0 else { return }
    let deadline = clock.now &+ UInt64(hid.idle) * Self.idleUnit
    state.idleDeadline = deadline
    idleTimer.arm(at: deadline)
  }

  private func repeatReport() {
    state.idleDeadline = nil
    // What waits already tells the driver; the next begins when that is taken.
    if hid.reports.isEmpty { enqueue(currentReport) }
  }
}

extension USBKeyboard: InputSink {
  package func accepts(_ event: InputEvent) -> Bool {
    guard case .key(let key, _) = event, HIDUsages.usage(of: key) != nil else { return false }
    return isInUse
  }

  package func deliver(_ event: InputEvent) {
    guard case .key(let key, let isPressed) = event, let usage = HIDUsages.usage(of: key), isInUse
    else { return }
    let before = (state.modifiers, state.keys)
    if Self.modifierUsages.contains(usage) {
      let bit: UInt8 = 1 << (usage - Self.modifierUsages.lowerBound)
      state.modifiers = isPressed ? state.modifiers | bit : state.modifiers & ~bit
    } else if !isPressed {
      state.keys.removeAll { $0 == usage }
    } else if !state.keys.contains(usage), state.keys.count < Self.mostKeys {
      state.keys.append(usage)
    }
    // Drivers repeat held keys by themselves.
    guard before != (state.modifiers, state.keys) else { return }
    enqueue(currentReport)
  }
}
