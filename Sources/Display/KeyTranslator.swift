import DeviceModel

/// Turns what a viewer types into the keys of the guest's keyboard.
///
/// A viewer that names keys has them passed on. From one that names characters,
/// the layout tells the key; when the guest's modifiers are not as the character
/// wants them, they are pressed or released first and put back after the key is
/// let go of, as the guest's keyboard repeats a key that is held. A character that
/// needs a dead key is typed as two taps; one that the keyboard lacks as Alt and its
/// number on the keypad.
public struct KeyTranslator: Sendable {
  public private(set) var layout: KeyboardLayout
  /// The guest's lock lights, as it last set them.
  public var leds = KeyboardLEDs()

  /// Keys that are down in the guest.
  private var held: Set<KeyCode> = []
  /// Which key each pressed keysym went to.
  private var pressed: [UInt32: KeyCode] = [:]
  /// The key that is held with other modifiers than the viewer's, and what was done
  /// for that.
  private var borrowed: (key: KeyCode, changes: [(KeyCode, Bool)])?
  private var output: [(KeyCode, Bool)] = []

  private static let leftShift = KeyCode(0x2A)
  private static let rightShift = KeyCode(0x36)
  private static let altGr = KeyCode(0xE038)
  private static let leftAlt = KeyCode(0x38)
  private static let controls = [KeyCode(0x1D), KeyCode(0xE01D)]
  private static let modifiers = [leftShift, rightShift, altGr, leftAlt] + controls
  private static let numberLock = KeyCode(0x45)
  /// A hostile viewer's endless different keysyms are forgotten beyond this.
  private static let maximumPressed = 128

  public init(layout: KeyboardLayout) {
    self.layout = layout
  }

  /// A key that the viewer names by position. Returns presses (`true`) and
  /// releases for the guest, in order.
  public mutating func translate(code: KeyCode, pressed: Bool) -> [(KeyCode, Bool)] {
    settle(before: code, pressed)
    send(code, pressed)
    if !pressed && borrowed?.key == code { giveBack() }
    return takeOutput()
  }

  /// A key that the viewer names by meaning.
  public mutating func translate(keysym: UInt32, pressed isPressed: Bool)
    -> [(KeyCode, Bool)]
  {
    if isPressed { press(keysym) } else { release(keysym) }
    return takeOutput()
  }

  /// Keysyms mean this from now on. What is held down is let go of: the same keysym
  /// may be another key when it repeats.
  public mutating func change(to layout: KeyboardLayout) -> [(KeyCode, Bool)] {
    guard layout != self.layout else { return [] }
    self.layout = layout
    return releaseAll()
  }

  /// Lets go of everything.
  public mutating func releaseAll() -> [(KeyCode, Bool)] {
    borrowed = nil
    for code in held.sorted(by: { $0.rawValue < $1.rawValue }) { send(code, false) }
    pressed = [:]
    return takeOutput()
  }

  private mutating func takeOutput() -> [(KeyCode, Bool)] {
    defer { output = [] }
    return output
  }

  private mutating func send(_ code: KeyCode, _ isPressed: Bool) {
    if isPressed { held.insert(code) } else { held.remove(code) }
    output.append((code, isPressed))
  }

  private mutating func tap(_ code: KeyCode) {
    send(code, true)
    send(code, false)
  }

  // MARK: Keysyms

  private mutating func press(_ keysym: UInt32) {
    if let code = pressed[keysym], code == borrowed?.key { return send(code, true) }
    giveBack()
    if let code = KeySym.key(keysym) {
      setNumberLock(for: keysym)
      hold(code, for: keysym)
      return
    }
    let strokes =
      KeySym.accent(keysym).map { layout.table.accents[$0].map { [$0] } ?? [] }
      ?? KeySym.character(keysym).map { layout.table.strokes(for: $0) } ?? []
    if let stroke = strokes.first, strokes.count == 1 {
      let changes = changes(for: stroke)
      for (code, isPressed) in changes { send(code, isPressed) }
      hold(stroke.code, for: keysym)
      if !changes.isEmpty { borrowed = (stroke.code, changes) }
    } else if !strokes.isEmpty {
      for stroke in strokes { with(stroke) { $0.tap(stroke.code) } }
    } else if let number = Self.latin1(keysym) {
      typeNumber(number)
    }
  }

  private mutating func hold(_ code: KeyCode, for keysym: UInt32) {
    if pressed.count < Self.maximumPressed { pressed[keysym] = code }
    send(code, true)
  }

  private mutating func release(_ keysym: UInt32) {
    // With Shift let go first, a viewer presses "A" and releases "a".
    let code =
      pressed.removeValue(forKey: keysym) ?? KeySym.key(keysym)
      ?? KeySym.character(keysym).flatMap { character in
        let strokes = layout.table.strokes(for: character)
        return strokes.count == 1 ? strokes[0].code : nil
      }
    guard let code else { return }
    settle(before: code, false)
    guard held.contains(code) else { return }
    pressed = pressed.filter { $0.value != code }
    send(code, false)
    if borrowed?.key == code { giveBack() }
  }

  private mutating func setNumberLock(for keysym: UInt32) {
    guard let wanted = KeySym.numberLock(keysym), wanted != leds.contains(.numLock) else {
      return
    }
    tap(Self.numberLock)
    // The guest's answer comes later; the next key must not toggle again.
    leds.formSymmetricDifference(.numLock)
  }

  // MARK: Modifiers

  /// Another key that goes down repeats instead of the one that borrows, and a
  /// modifier's release is about the viewer's own.
  private mutating func settle(before code: KeyCode, _ isPressed: Bool) {
    guard let key = borrowed?.key, key != code else { return }
    if isPressed || Self.modifiers.contains(code) { giveBack() }
  }

  /// Puts the viewer's modifiers back.
  private mutating func giveBack() {
    guard let changes = borrowed?.changes else { return }
    borrowed = nil
    for (code, isPressed) in changes.reversed() { send(code, !isPressed) }
  }

  /// Runs `body` with the guest's modifiers as the stroke wants them.
  private mutating func with(_ stroke: KeyStroke, _ body: (inout KeyTranslator) -> Void) {
    apply(changes(for: stroke), body)
  }

  /// What makes the guest's modifiers those that the stroke wants.
  private func changes(for stroke: KeyStroke) -> [(KeyCode, Bool)] {
    var wantsShift = stroke.shift
    if stroke.isAlphabetic && leds.contains(.capsLock) { wantsShift.toggle() }
    var changes: [(KeyCode, Bool)] = []
    let shifts = [Self.leftShift, Self.rightShift].filter(held.contains)
    if wantsShift && shifts.isEmpty { changes.append((Self.leftShift, true)) }
    if !wantsShift { changes += shifts.map { ($0, false) } }
    let hasAltGr = held.contains(Self.altGr)
    if stroke.altGr {
      // Windows viewers send AltGr as Ctrl and Alt.
      if hasAltGr || held.contains(Self.leftAlt) {
        changes += Self.controls.filter(held.contains).map { ($0, false) }
      }
      if held.contains(Self.leftAlt) { changes.append((Self.leftAlt, false)) }
      if !hasAltGr { changes.append((Self.altGr, true)) }
    } else if hasAltGr {
      changes.append((Self.altGr, false))
    }
    return changes
  }

  private mutating func apply(
    _ changes: [(KeyCode, Bool)], _ body: (inout KeyTranslator) -> Void
  ) {
    for (code, isPressed) in changes { send(code, isPressed) }
    body(&self)
    for (code, isPressed) in changes.reversed() { send(code, !isPressed) }
  }

  // MARK: Characters by number

  private static func latin1(_ keysym: UInt32) -> UInt32? {
    (0xA0...0xFF).contains(keysym) ? keysym : nil
  }

  /// Alt with 0 and the character's number on the keypad: Windows and the Linux
  /// console make Latin-1 characters of it.
  private mutating func typeNumber(_ number: UInt32) {
    var changes = Self.modifiers.filter(held.contains).map { ($0, false) }
    changes.append((Self.leftAlt, true))
    if !leds.contains(.numLock) { setNumberLock(for: 0xFFB0) }
    apply(changes) { translator in
      for divisor: UInt32 in [1000, 100, 10, 1] {
        translator.tap(KeyCode(KeySym.keypadDigits[Int(number / divisor % 10)]))
      }
    }
  }
}
