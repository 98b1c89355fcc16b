import DeviceModel

/// What the keys of a keyboard mean, for viewers that name characters, not keys.
public enum KeyboardLayout: String, CaseIterable, Sendable {
  /// United States, with AltGr for other letters as in "international".
  case enUS = "en-us"
  case german = "de"
  case french = "fr"

  var table: KeyboardTable {
    switch self {
    case .enUS: Self.enUSTable
    case .german: Self.germanTable
    case .french: Self.frenchTable
    }
  }

  private static let enUSTable = KeyboardTable(KeyboardRows.enUS)
  private static let germanTable = KeyboardTable(KeyboardRows.german)
  private static let frenchTable = KeyboardTable(KeyboardRows.french)
}

/// A key, and the modifiers under which it means something.
struct KeyStroke: Hashable, Sendable {
  var code: KeyCode
  var shift = false
  var altGr = false
  /// Caps lock exchanges its first two levels.
  var isAlphabetic = false
}

/// Where each character is on a keyboard.
struct KeyboardTable: Sendable {
  private(set) var characters: [Unicode.Scalar: KeyStroke] = [
    " ": KeyStroke(code: KeyCode(0x39))
  ]
  /// Dead keys, by the spacing form of their accent.
  private(set) var accents: [Unicode.Scalar: KeyStroke] = [:]

  init(_ rows: [KeyboardRows.Row]) {
    for level in 0..<4 {
      for row in rows {
        for (index, key) in row.keys.split(separator: " ").enumerated() {
          add(Array(key.unicodeScalars), KeyCode(row.first + UInt16(index)), level)
        }
      }
    }
  }

  /// Lower levels come first and stay.
  private mutating func add(_ key: [Unicode.Scalar], _ code: KeyCode, _ level: Int) {
    guard level < key.count, key[level] != KeyboardRows.nothing else { return }
    let stroke = KeyStroke(
      code: code, shift: level & 1 != 0, altGr: level & 2 != 0,
      isAlphabetic: key.count > 1 && key[0] != key[1]
        && key[0].properties.uppercaseMapping.unicodeScalars.elementsEqual([key[1]]))
    if KeyboardRows.accents.contains(key[level]) {
      if accents[key[level]] == nil { accents[key[level]] = stroke }
    } else if characters[key[level]] == nil {
      characters[key[level]] = stroke
    }
  }

  /// The strokes that make a character, each a tap but a single one, which may be
  /// held. Empty when the keyboard has no way.
  func strokes(for character: Unicode.Scalar) -> [KeyStroke] {
    if let direct = characters[character] { return [direct] }
    if let (base, accent) = KeyboardRows.compositions[character],
      let dead = accents[accent], let key = characters[base]
    {
      return [dead, key]
    }
    if let (accent, isDoubled) = KeyboardRows.spacing[character], let dead = accents[accent],
      let space = characters[" "]
    {
      return [dead, isDoubled ? dead : space]
    }
    return []
  }
}
