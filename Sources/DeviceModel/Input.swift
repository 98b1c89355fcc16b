/// A key by position: the PC scan code set 1 "make" code, with the E0 prefix as
/// the high byte (`0xE01C` is keypad Enter), as in RFB's QEMU extended key event
/// after normalisation. Pause is `0xE11D`, Print Screen `0xE037`.
public struct KeyCode: Hashable, Sendable, Codable {
  public var rawValue: UInt16

  public init(_ rawValue: UInt16) { self.rawValue = rawValue }
}

/// Mouse buttons, a set.
public struct PointerButtons: OptionSet, Hashable, Sendable, Codable {
  public let rawValue: UInt8

  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let left = PointerButtons(rawValue: 1)
  public static let middle = PointerButtons(rawValue: 2)
  public static let right = PointerButtons(rawValue: 4)
  public static let side = PointerButtons(rawValue: 8)
  public static let extra = PointerButtons(rawValue: 16)
}

/// What a person did, on its way to the guest.
public enum InputEvent: Hashable, Sendable {
  case key(KeyCode, pressed: Bool)
  /// `x` and `y` are 0 … 65535 over the whole scan-out.
  case absolutePointer(x: UInt16, y: UInt16, buttons: PointerButtons)
  /// `y` grows downwards, `wheel` away from the user is positive.
  case relativePointer(x: Int, y: Int, wheel: Int, horizontalWheel: Int, buttons: PointerButtons)
}

/// Where input enters a guest device. Called with the device lock held.
public protocol InputSink: AnyObject {
  /// Whether the guest's driver is ready for events of this kind at present; the
  /// machine picks the first sink that accepts (vmmouse before PS/2).
  func accepts(_ event: InputEvent) -> Bool
  func deliver(_ event: InputEvent)
}

/// Keyboard lock lights, as the guest set them.
public struct KeyboardLEDs: OptionSet, Hashable, Sendable, Codable {
  public let rawValue: UInt8

  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let scrollLock = KeyboardLEDs(rawValue: 1)
  public static let numLock = KeyboardLEDs(rawValue: 2)
  public static let capsLock = KeyboardLEDs(rawValue: 4)
}
