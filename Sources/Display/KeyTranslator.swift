import DeviceModel

/// Turns what a viewer types into the keys of the guest's keyboard.
public struct KeyTranslator: Sendable {
  public let layout: KeyboardLayout
  /// The guest's lock lights, as it last set them.
  public var leds = KeyboardLEDs()

  private var held: Set<KeyCode> = []

  public init(layout: KeyboardLayout) {
    self.layout = layout
  }

  /// A key that the viewer names by position.
  public mutating func translate(code: KeyCode, pressed: Bool) -> [(KeyCode, Bool)] {
    if pressed { held.insert(code) } else { held.remove(code) }
    return [(code, pressed)]
  }

  public mutating func translate(keysym: UInt32, pressed: Bool) -> [(KeyCode, Bool)] {
    []
  }

  public mutating func releaseAll() -> [(KeyCode, Bool)] {
    defer { held = [] }
    return held.sorted { $0.rawValue < $1.rawValue }.map { ($0, false) }
  }
}
