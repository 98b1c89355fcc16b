/// The keyboards, row by row: what a viewer's characters are looked up in, and,
/// compiled into the demo desktop too, what its keys mean there.
///
/// Per key up to four characters: alone, with Shift, with AltGr, with both.
/// `□` is nothing. Accents in their spacing forms (ˋ ˊ ˆ ˜ ‥ ˚ ‚ ˉ) are dead keys.
/// Characters that no viewer's Latin-1 needs are left out.
enum KeyboardRows {
  struct Row: Sendable {
    /// The scan code of the row's first key; the others follow it.
    let first: UInt16
    let keys: String
  }

  static let nothing: Unicode.Scalar = "□"
  static let accents = "ˋˊˆ˜‥˚‚ˉ"

  /// X's `us(altgr-intl)`: the plain United States keyboard, whose apostrophe and
  /// quotation mark are no dead keys, with other letters and accents under AltGr.
  static let enUS = [
    Row(first: 0x29, keys: #"`~ˋ˜"#),
    Row(first: 0x02, keys: #"1!¹¡ 2@² 3#³ˉ 4$¤£ 5%€‚ 6^ˆ¼ 7&□½ 8*□¾ 9( 0)□˚ -_¥ =+×÷"#),
    Row(first: 0x10, keys: #"qQäÄ wWåÅ eEéÉ rRëË tTþÞ yYüÜ uUúÚ iIíÍ oOóÓ pPöÖ [{« ]}»"#),
    Row(first: 0x1E, keys: #"aAáÁ sSß§ dDðÐ fF gG hH jJïÏ kKœŒ lLøØ ;:¶° '"ˊ‥"#),
    Row(first: 0x2B, keys: #"\|¬¦"#),
    Row(first: 0x2C, keys: #"zZæÆ xX cC©¢ vV® bB nNñÑ mMµ ,<çÇ .> /?¿"#),
    Row(first: 0x56, keys: #"\|"#),
  ]

  static let german = [
    Row(first: 0x29, keys: #"ˆ°"#),
    Row(first: 0x02, keys: #"1!¹¡ 2"² 3§³£ 4$¼¤ 5%½ 6&¬ 7/{ 8([ 9)]± 0=}° ß?\¿ ˊˋ‚"#),
    Row(first: 0x10, keys: #"qQ@ wW□§ eE€ rR¶® tT zZ□¥ uU iI oOøØ pPþÞ üÜ‥˚ +*~¯"#),
    Row(first: 0x1E, keys: #"aAæÆ sS dDðÐ fF□ª gG hH jJ kK□& lL öÖ äÄˆ"#),
    Row(first: 0x2B, keys: #"#'"#),
    Row(first: 0x2C, keys: #"yY» xX« cC¢© vV bB nN mMµº ,;·× .:□÷ -_"#),
    Row(first: 0x56, keys: #"<>|"#),
  ]

  static let french = [
    Row(first: 0x29, keys: #"²~¬"#),
    Row(first: 0x02, keys: #"&1¹¡ é2~ "3#£ '4{$ (5[ -6| è7` _8\ ç9^± à0@° )°]¿ =+}"#),
    Row(first: 0x10, keys: #"aAæÆ zZ«< eE€¢ rR¶® tT yY□¥ uU iI oOøØ pPþÞ ˆ‥□˚ $£¤ˉ"#),
    Row(first: 0x1E, keys: #"qQ@ sSßẞ dDðÐ fF□ª gG hH jJ kK□& lL mMµº ù%"#),
    Row(first: 0x2B, keys: #"*µˋ"#),
    Row(first: 0x2C, keys: #"wW xX»> cC¢© vV bB nN ,?ˊ ;.□× :/·÷ !§"#),
    Row(first: 0x56, keys: #"<>|¦"#),
  ]

  /// Latin-1's accented letters: letter, base, accent.
  static let compositions = """
    ÀAˋ ÁAˊ ÂAˆ ÃA˜ ÄA‥ ÅA˚ ÇC‚ ÈEˋ ÉEˊ ÊEˆ ËE‥ ÌIˋ ÍIˊ ÎIˆ ÏI‥ ÑN˜ ÒOˋ ÓOˊ ÔOˆ ÕO˜ ÖO‥ ÙUˋ \
    ÚUˊ ÛUˆ ÜU‥ ÝYˊ àaˋ áaˊ âaˆ ãa˜ äa‥ åa˚ çc‚ èeˋ éeˊ êeˆ ëe‥ ìiˋ íiˊ îiˆ ïi‥ ñn˜ òoˋ óoˊ \
    ôoˆ õo˜ öo‥ ùuˋ úuˊ ûuˆ üu‥ ýyˊ ÿy‥
    """

  /// Accents for themselves: character, dead key, and what follows that: `␣` a space,
  /// or the dead key again where with a space it means another character (' and ").
  static let spacing = "`ˋ␣ ^ˆ␣ ~˜␣ ¯ˉ␣ ¸‚␣ °˚␣ ´ˊˊ ¨‥‥"
}
