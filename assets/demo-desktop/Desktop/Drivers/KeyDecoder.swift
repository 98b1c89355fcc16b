/// What a key press means to a window.
enum KeyAction {
  case character(UInt16)
  case enter, tab, backspace, delete, escape
  case left, right, up, down, home, end, pageUp, pageDown
  case function(Int)
  case none
}

struct KeyEvent {
  /// The set 1 code, with a 0xE0 prefix in the high byte.
  var code: UInt16
  /// A release has an action only when it completes a character's number.
  var isDown: Bool
  /// True for the repetitions of a key that is held.
  var isRepeat: Bool
  var action: KeyAction
  var control: Bool
  var alt: Bool
}

/// Scancode set 1 to key events under a layout. Alt and digits of the keypad type the
/// character of that number when Alt is let go of.
struct KeyDecoder {
  /// Scroll lock 1, num lock 2, caps lock 4, as the keyboard's lights count them.
  private(set) var locks: UInt8 = 2

  private var prefix: UInt16 = 0
  private var toSkip = 0
  private var held: [UInt16] = []
  private var accent: UInt16?
  private var number: Int?
  /// What the keys say; may change at any time.
  var keymap: Keymap

  private static let keypad: StaticString = "789-456+1230."

  init(_ keymap: Keymap) { self.keymap = keymap }

  mutating func decode(_ byte: UInt8) -> KeyEvent? {
    if toSkip > 0 {
      toSkip -= 1
      return nil
    }
    if byte == 0xE0 {
      prefix = 0xE000
      return nil
    }
    if byte == 0xE1 {  // Pause: E1 1D 45 E1 9D C5
      toSkip = 2
      return nil
    }
    let code = prefix | UInt16(byte & 0x7F)
    prefix = 0
    if code == 0xE02A || code == 0xE036 { return nil }  // shifts around navigation keys
    return event(code, isDown: byte & 0x80 == 0)
  }

  private mutating func event(_ code: UInt16, isDown: Bool) -> KeyEvent {
    let isRepeat = isDown && held.contains(code)
    if isDown {
      if !isRepeat { held.append(code) }
    } else {
      held.removeAll { $0 == code }
    }
    if isDown, !isRepeat { toggleLock(code) }
    let action = isDown ? spells(code, isRepeat) ? .none : action(code) : spelled(code)
    return KeyEvent(
      code: code, isDown: isDown, isRepeat: isRepeat, action: action,
      control: held.contains(0x1D) || held.contains(0xE01D),
      alt: held.contains(0x38))
  }

  /// Takes a digit of a character's number, with or without num lock.
  private mutating func spells(_ code: UInt16, _ isRepeat: Bool) -> Bool {
    guard held.contains(0x38), (0x47...0x52).contains(code) else { return false }
    let digit = Int(Self.entry(Self.keypad, Int(code) - 0x47)) - 0x30
    guard (0...9).contains(digit) else { return false }
    if !isRepeat { number = min(0x1_0000, (number ?? 0) * 10 + digit) }
    return true
  }

  /// The character whose number was complete with the release of Alt.
  private mutating func spelled(_ code: UInt16) -> KeyAction {
    guard code == 0x38, let number else { return .none }
    self.number = nil
    switch number {
    case 0x20...0x7E, 0xA0...0xD7FF, 0xE000...0xFFFD: return .character(UInt16(number))
    default: return .none
    }
  }

  private mutating func toggleLock(_ code: UInt16) {
    switch code {
    case 0x46: locks ^= 1
    case 0x45: locks ^= 2
    case 0x3A: locks ^= 4
    default: break
    }
  }

  private var shift: Bool { held.contains(0x2A) || held.contains(0x36) }

  private mutating func action(_ code: UInt16) -> KeyAction {
    switch code {
    case 0xE01C: return .enter
    case 0xE035: return .character(0x2F)
    case 0x47...0x53: return keypadAction(code)
    case 0x59: return .character(0x3D)
    case 0xE047...0xE053: return Self.navigation(code & 0xFF)
    case 0x3B...0x44: return .function(Int(code) - 0x3A)
    case 0x57, 0x58: return .function(Int(code) - 0x4C)
    case 0x00...0x39, 0x56: return mainAction(Int(code))
    default: return .none
    }
  }

  private mutating func mainAction(_ code: Int) -> KeyAction {
    switch code {
    case 0x01: return .escape
    case 0x0E: return .backspace
    case 0x0F: return .tab
    case 0x1C: return .enter
    case 0x37: return .character(0x2A)
    default: break
    }
    let typed = keymap.character(
      code, shift: shift, altGr: held.contains(0xE038), capsLock: locks & 4 != 0)
    guard let typed else { return .none }
    if let dead = accent {
      accent = nil
      return .character(DeadKey.combine(dead, typed))
    }
    if DeadKey.isDead(typed) {
      accent = typed
      return .none
    }
    return .character(typed)
  }

  private func keypadAction(_ code: UInt16) -> KeyAction {
    let character = Self.entry(Self.keypad, Int(code) - 0x47)
    let isOperator = character == 0x2D || character == 0x2B
    if isOperator || (locks & 2 != 0) != shift { return .character(UInt16(character)) }
    return Self.navigation(code)
  }

  private static func navigation(_ code: UInt16) -> KeyAction {
    switch code {
    case 0x47: return .home
    case 0x48: return .up
    case 0x49: return .pageUp
    case 0x4B: return .left
    case 0x4D: return .right
    case 0x4F: return .end
    case 0x50: return .down
    case 0x51: return .pageDown
    case 0x53: return .delete
    default: return .none
    }
  }

  private static func entry(_ table: StaticString, _ index: Int) -> UInt8 {
    table.withUTF8Buffer { $0.indices.contains(index) ? $0[index] : 0 }
  }
}
