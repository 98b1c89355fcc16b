/// The key names of QMP (type `QKeyCode`), as scan codes of set 1 with an E0 or E1
/// prefix in the high byte.
package enum QKeyCode {
  /// The scan code of a key name; nil when there is no such key.
  package static func scanCode(of name: String) -> UInt16? { codes[name] }

  /// The scan code for QMP's `number` form, in which 0x80 marks the E0 prefix.
  package static func scanCode(ofNumber number: Int) -> UInt16? {
    switch number {
    case 1..<0x80: UInt16(number)
    case 0x81..<0x100: 0xE000 | UInt16(number & 0x7F)
    case 0xE001..<0xE080: UInt16(number)
    default: nil
    }
  }

  package static var names: [String] { codes.keys.sorted() }

  private static let codes: [String: UInt16] = {
    var codes = special
    let rows: [(first: UInt16, keys: [String])] = [
      (0x02, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0", "minus", "equal"]),
      (0x10, ["q", "w", "e", "r", "t", "y", "u", "i", "o", "p", "bracket_left", "bracket_right"]),
      (0x1E, ["a", "s", "d", "f", "g", "h", "j", "k", "l", "semicolon", "apostrophe"]),
      (0x2C, ["z", "x", "c", "v", "b", "n", "m", "comma", "dot", "slash"]),
      (0x3B, ["f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10"]),
      (0x47, ["kp_7", "kp_8", "kp_9", "kp_subtract", "kp_4", "kp_5", "kp_6", "kp_add"]),
      (0x4F, ["kp_1", "kp_2", "kp_3", "kp_0", "kp_decimal"]),
    ]
    for row in rows {
      for (index, key) in row.keys.enumerated() { codes[key] = row.first + UInt16(index) }
    }
    return codes
  }()

  private static let special: [String: UInt16] = [
    "esc": 0x01, "backspace": 0x0E, "tab": 0x0F, "ret": 0x1C, "ctrl": 0x1D,
    "grave_accent": 0x29, "shift": 0x2A, "backslash": 0x2B, "shift_r": 0x36,
    "asterisk": 0x37, "kp_multiply": 0x37, "alt": 0x38, "spc": 0x39, "caps_lock": 0x3A,
    "num_lock": 0x45, "scroll_lock": 0x46, "sysrq": 0x54, "less": 0x56, "f11": 0x57,
    "f12": 0x58, "kp_equals": 0x59, "lf": 0x5B, "open": 0x64, "paste": 0x65,
    "f13": 0x5D, "f14": 0x5E, "f15": 0x5F, "f16": 0x55, "f17": 0xE003, "f18": 0xE077,
    "f19": 0xE004, "f20": 0x5A, "f21": 0x74, "f22": 0xE079, "f23": 0x6D, "f24": 0x6F,
    "katakanahiragana": 0x70, "lang2": 0x71, "lang1": 0x72, "ro": 0x73, "hiragana": 0x77,
    "henkan": 0x79, "muhenkan": 0x7B, "yen": 0x7D, "kp_comma": 0x7E,
    "kp_enter": 0xE01C, "ctrl_r": 0xE01D, "kp_divide": 0xE035, "print": 0xE037,
    "alt_r": 0xE038, "pause": 0xE11D, "home": 0xE047, "up": 0xE048, "pgup": 0xE049,
    "left": 0xE04B, "right": 0xE04D, "end": 0xE04F, "down": 0xE050, "pgdn": 0xE051,
    "insert": 0xE052, "delete": 0xE053, "meta_l": 0xE05B, "meta_r": 0xE05C,
    "compose": 0xE05D, "menu": 0xE01E, "power": 0xE05E, "sleep": 0xE05F, "wake": 0xE063,
    "again": 0xE005, "props": 0xE006, "undo": 0xE007, "front": 0xE00C, "cut": 0xE03C,
    "find": 0xE041, "stop": 0xE068, "help": 0xE075, "copy": 0xE078,
    "audioprev": 0xE010, "audionext": 0xE019, "audiomute": 0xE020, "calculator": 0xE021,
    "audioplay": 0xE022, "audiostop": 0xE024, "volumedown": 0xE02E, "volumeup": 0xE030,
    "ac_home": 0xE032, "ac_bookmarks": 0xE066, "ac_refresh": 0xE067, "ac_forward": 0xE069,
    "ac_back": 0xE06A, "computer": 0xE06B, "mail": 0xE06C, "mediaselect": 0xE06D,
  ]
}
