import DeviceModel

/// What the keys of a keyboard mean, for viewers that name characters, not keys.
public enum KeyboardLayout: String, CaseIterable, Sendable {
  /// United States, with AltGr for other letters and accents (X's `altgr-intl`, and
  /// close to Windows' "United States-International" without its dead plain keys).
  /// A guest set to plain `us` understands all of ASCII as sent here.
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
  /// Caps lock exchanges its level with the one that Shift adds or takes away.
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

  private static let compositions = entries(KeyboardRows.compositions)
  private static let spacing = entries(KeyboardRows.spacing)

  /// Entries of three characters, by their first.
  private static func entries(_ text: String) -> [Unicode.Scalar: [Unicode.Scalar]] {
    text.split(separator: " ").map { Array($0.unicodeScalars) }.reduce(into: [:]) {
      if $1.count == 3 { $0[$1[0]] = Array($1[1...]) }
    }
  }

  /// Lower levels come first and stay.
  private mutating func add(_ key: [Unicode.Scalar], _ code: KeyCode, _ level: Int) {
    guard level < key.count, key[level] != KeyboardRows.nothing else { return }
    let stroke = KeyStroke(
      code: code, shift: level & 1 != 0, altGr: level & 2 != 0,
      isAlphabetic: Self.isPair(key, level & 2) && Self.isPair(key, 0))
    if KeyboardRows.accents.unicodeScalars.contains(key[level]) {
      if accents[key[level]] == nil { accents[key[level]] = stroke }
    } else if characters[key[level]] == nil {
      characters[key[level]] = stroke
    }
  }

  /// Whether a level and the next one are a letter in both cases.
  private static func isPair(_ key: [Unicode.Scalar], _ level: Int) -> Bool {
    level + 1 < key.count && key[level] != key[level + 1]
      && key[level + 1].properties.lowercaseMapping.unicodeScalars.elementsEqual([key[level]])
  }

  /// The strokes that make a character, each a tap but a single one, which may be
  /// held. Empty when the keyboard has no way.
  func strokes(for character: Unicode.Scalar) -> [KeyStroke] {
    if let direct = characters[character] { return [direct] }
    if let parts = Self.compositions[character], let dead = accents[parts[1]],
      let key = characters[parts[0]]
    {
      return [dead, key]
    }
    if let parts = Self.spacing[character], let dead = accents[parts[0]],
      let space = characters[" "]
    {
      return [dead, parts[1] == parts[0] ? dead : space]
    }
    return []
  }
}
