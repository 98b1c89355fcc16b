/// What the keys of the main block say: plain, with Shift, with AltGr.
///
/// Each level is the twelve keys from `1`, the twelve from `Q`, the twelve from `A` up
/// to and with the one left of `1`, the eleven from the one at Enter over `Z` to the
/// right Shift, and the extra key beside the left Shift. A space is a key that says
/// nothing; combining accents stand for dead keys.
struct KeyboardLayout {
  private let plain: Text
  private let shifted: Text
  private let alternate: Text

  static let us = KeyboardLayout(
    plain: #"1234567890-=qwertyuiop[]asdfghjkl;'`\zxcvbnm,./<"#,
    shifted: #"!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:"~|ZXCVBNM<>?>"#,
    alternate: "")

  static let de = KeyboardLayout(
    plain: "1234567890ß\u{301}qwertzuiopü+asdfghjklöä\u{302}#yxcvbnm,.-<",
    shifted: "!\"§$%&/()=?\u{300}QWERTZUIOPÜ*ASDFGHJKLÖÄ°'YXCVBNM;:_>",
    alternate: #" ²³   {[]}\ @ €        ~                   µ   |"#)

  static let fr = KeyboardLayout(
    plain: "&é\"'(-è_çà)=azertyuiop\u{302}$qsdfghjklmù²*wxcvbn,;:!<",
    shifted: "1234567890°+AZERTYUIOP\u{308}£QSDFGHJKLM% µWXCVBN?./§>",
    alternate: #" ~#{[|`\^@]}  €        ¤                        "#)

  private init(plain: String, shifted: String, alternate: String) {
    (self.plain, self.shifted, self.alternate) = (plain.text, shifted.text, alternate.text)
  }

  static func named(_ name: Text) -> KeyboardLayout {
    if name == "de".text { return .de }
    return name == "fr".text ? .fr : .us
  }

  func character(_ code: Int, shift: Bool, alternate altGr: Bool, capsLock: Bool) -> UInt16? {
    guard let index = Self.index(code) else { return nil }
    if altGr, !alternate.isEmpty { return Self.entry(alternate, index) }
    guard let low = Self.entry(plain, index) else { return Self.entry(shifted, index) }
    let high = Self.entry(shifted, index)
    let isLetter = low >= 0x61 && high == low - 0x20
    return (isLetter && capsLock ? !shift : shift) ? high : low
  }

  /// The place of a set 1 code in the tables.
  private static func index(_ code: Int) -> Int? {
    switch code {
    case 0x02...0x0D: return code - 0x02
    case 0x10...0x1B: return code - 0x10 + 12
    case 0x1E...0x29: return code - 0x1E + 24
    case 0x2B...0x35: return code - 0x2B + 36
    case 0x56: return 47
    default: return nil
    }
  }

  private static func entry(_ table: Text, _ index: Int) -> UInt16? {
    guard table.indices.contains(index), table[index] != 0x20 else { return nil }
    return table[index]
  }
}

/// A dead key and the character that follows it.
enum DeadKey {
  private static let accents: [(dead: UInt16, alone: UInt16, from: Text, to: Text)] = [
    (0x300, 0x60, "aeiouAEIOU".text, "àèìòùÀÈÌÒÙ".text),
    (0x301, 0xB4, "aeiouyAEIOUY".text, "áéíóúýÁÉÍÓÚÝ".text),
    (0x302, 0x5E, "aeiouAEIOU".text, "âêîôûÂÊÎÔÛ".text),
    (0x308, 0xA8, "aeiouyAEIOU".text, "äëïöüÿÄËÏÖÜ".text),
  ]

  static func isDead(_ code: UInt16) -> Bool { (0x300...0x36F).contains(code) }

  /// The accented character; the accent alone before a space; else just `code`.
  static func combine(_ dead: UInt16, _ code: UInt16) -> UInt16 {
    guard let accent = accents.first(where: { $0.dead == dead }) else { return code }
    if code == 0x20 || code == dead { return accent.alone }
    guard let index = accent.from.firstIndex(of: code) else { return code }
    return accent.to[index]
  }
}
