/// What the keys of the main block say, on four levels: plain, with Shift, with
/// AltGr, with both. The rows are the ones that Carrel's display turns a viewer's
/// characters into keys with (`KeyboardRows`), so both agree on every character.
struct Keymap {
  enum Layout {
    /// `us` or `en-us`: X's `us(altgr-intl)`.
    case us
    case de, fr

    /// Unknown names and none at all mean the first.
    static func named(_ name: Text) -> Layout {
      if name == "de".text { return .de }
      return name == "fr".text ? .fr : .us
    }

    var name: String {
      switch self {
      case .us: "en-us"
      case .de: "de"
      case .fr: "fr"
      }
    }
  }

  let layout: Layout
  /// Four for each set 1 code; 0 says nothing.
  private var levels = Text(repeating: 0, count: Self.codes * 4)
  private static let codes = 0x60

  init(_ layout: Layout) {
    self.layout = layout
    switch layout {
    case .us: read(KeyboardRows.enUS)
    case .de: read(KeyboardRows.german)
    case .fr: read(KeyboardRows.french)
    }
    levels[0x39 * 4] = 0x20
    levels[0x39 * 4 + 1] = 0x20
  }

  private mutating func read(_ rows: [KeyboardRows.Row]) {
    for row in rows {
      for (index, key) in row.keys.text.split(separator: 0x20).enumerated() {
        for (level, code) in key.enumerated() where code != KeyboardRows.nothing.value {
          levels[(Int(row.first) + index) * 4 + level] = code
        }
      }
    }
  }

  /// The character, or the spacing form of a dead key's accent.
  func character(_ code: Int, shift: Bool, altGr: Bool, capsLock: Bool) -> UInt16? {
    guard (0..<Self.codes).contains(code) else { return nil }
    // As XKB's key types have it: AltGr means nothing to a key of two levels, and caps
    // lock exchanges two levels of a letter, the upper two only if the lower two are.
    let start = code * 4
    let hasUpper = levels[start + 2] != 0 || levels[start + 3] != 0
    let pair = start + (altGr && hasUpper ? 2 : 0)
    let isLetter = isPair(start) && isPair(pair)
    let typed = levels[pair + ((isLetter && capsLock) != shift ? 1 : 0)]
    return typed == 0 ? nil : typed
  }

  /// Whether two levels are a letter in both cases.
  private func isPair(_ place: Int) -> Bool {
    let (lower, upper) = (levels[place], levels[place + 1])
    switch lower {
    case 0x61...0x7A, 0xE0...0xF6, 0xF8...0xFE: return upper == lower - 0x20
    case 0xDF: return upper == 0x1E9E
    case 0x153: return upper == 0x152
    default: return false
    }
  }
}

/// A dead key and the character that follows it.
enum DeadKey {
  private static let accents = KeyboardRows.accents.text
  private static let compositions = entries(KeyboardRows.compositions)
  private static let spacing = entries(KeyboardRows.spacing)

  private static func entries(_ text: String) -> [Text] {
    text.text.split(separator: 0x20).map { Array($0) }
  }

  static func isDead(_ code: UInt16) -> Bool { accents.contains(code) }

  /// The accented character; the accent alone before a space or itself; else just
  /// `code`.
  static func combine(_ dead: UInt16, _ code: UInt16) -> UInt16 {
    if code == 0x20 || code == dead {
      return spacing.first { $0[1] == dead }?[0] ?? code
    }
    return compositions.first { $0[1] == code && $0[2] == dead }?[0] ?? code
  }
}
