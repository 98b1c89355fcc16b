import DeviceModel
import Display
import Testing

extension KeyboardLayout {
  var reference: [UInt16: [UInt32]] {
    switch self {
    case .enUS: XKBKnowledge.enUS
    case .german: XKBKnowledge.german
    case .french: XKBKnowledge.french
    }
  }
}

/// A guest that understands its keyboard as XKB does, with dead keys as X's
/// Compose table has them, and Alt and keypad digits as the Linux console.
private struct Guest {
  let keys: [UInt16: [UInt32]]
  var down: Set<UInt16> = []
  var capsLock = false
  var numLock = false
  var typed: [UInt32] = []
  private var dead: UInt32?
  private var number: UInt32?

  init(_ layout: KeyboardLayout) { keys = layout.reference }

  private static let digits: [UInt16] = [
    0x52, 0x4F, 0x50, 0x51, 0x4B, 0x4C, 0x4D, 0x47, 0x48, 0x49,
  ]

  mutating func take(_ events: [(KeyCode, Bool)]) {
    for (code, pressed) in events {
      if pressed {
        down.insert(code.rawValue)
        press(code.rawValue)
      } else {
        down.remove(code.rawValue)
        if code.rawValue == 0x38, let number {
          typed.append(number)
          self.number = nil
        }
      }
    }
  }

  private mutating func press(_ code: UInt16) {
    if down.contains(0x38), let digit = Self.digits.firstIndex(of: code) {
      number = (number ?? 0) * 10 + UInt32(digit)
      return
    }
    if code == 0x45 { return numLock.toggle() }
    if code == 0x3A { capsLock.toggle() }
    guard let levels = keys[code], !levels.isEmpty else { return }
    let keysym = levels[min(level(code, levels), levels.count - 1)]
    // Modifiers type nothing.
    let isModifier = (0xFFE1...0xFFEE).contains(keysym) || (0xFE01...0xFE13).contains(keysym)
    if !isModifier { compose(keysym) }
  }

  private func level(_ code: UInt16, _ levels: [UInt32]) -> Int {
    var shift = down.contains(0x2A) || down.contains(0x36)
    if (0x47...0x53).contains(code) && code != 0x4A && code != 0x4E {
      return numLock != shift ? 1 : 0
    }
    let altGr = down.contains(0xE038)
    if capsLock && levels.count > 1, isPair(levels[0], levels[1]),
      !altGr || levels.count == 4 && isPair(levels[2], levels[3])
    {
      // FOUR_LEVEL_ALPHABETIC, and (SEMI)ALPHABETIC without AltGr.
      shift.toggle()
    }
    return (shift ? 1 : 0) + (altGr ? 2 : 0)
  }

  private func isPair(_ lower: UInt32, _ upper: UInt32) -> Bool {
    if lower == 0x13BD { return upper == 0x13BC }
    let scalars = [lower, upper].compactMap { Unicode.Scalar($0 & 0xFF_FFFF) }
    guard lower != upper, scalars.count == 2 else { return false }
    return scalars[1].properties.lowercaseMapping == String(Character(scalars[0]))
  }

  private mutating func compose(_ keysym: UInt32) {
    guard let accent = dead else {
      if (0xFE50...0xFE5F).contains(keysym) { dead = keysym } else { typed.append(keysym) }
      return
    }
    dead = nil
    let marks: [UInt32: (UInt32, spacing: UInt32, doubled: UInt32)] = [
      0xFE50: (0x300, 0x60, 0x60), 0xFE51: (0x301, 0x27, 0xB4), 0xFE52: (0x302, 0x5E, 0x5E),
      0xFE53: (0x303, 0x7E, 0x7E), 0xFE54: (0x304, 0xAF, 0xAF), 0xFE57: (0x308, 0x22, 0xA8),
      0xFE58: (0x30A, 0xB0, 0xB0), 0xFE5B: (0x327, 0xB8, 0xB8),
    ]
    guard let (mark, spacing, doubled) = marks[accent] else { return }
    if keysym == 0x20 { return typed.append(spacing) }
    if keysym == accent { return typed.append(doubled) }
    for candidate in UInt32(0xC0)...0xFF {
      guard let made = Unicode.Scalar(candidate), let base = Unicode.Scalar(keysym),
        let accent = Unicode.Scalar(mark)
      else { continue }
      var decomposed = String.UnicodeScalarView()
      decomposed.append(base)
      decomposed.append(accent)
      // Strings compare by canonical equivalence.
      if String(decomposed) == String(Character(made)) { return typed.append(candidate) }
    }
  }
}

private let latin1 = Array(UInt32(0x20)...0x7E) + (0xA0...0xFF).filter { $0 != 0xAD }

@Suite("Keyboard layouts")
struct KeyTranslatorTests {
  @Test("every printable Latin-1 character reaches the guest", arguments: KeyboardLayout.allCases)
  func latin1Characters(layout: KeyboardLayout) {
    for keysym in latin1 {
      var translator = KeyTranslator(layout: layout)
      var guest = Guest(layout)
      guest.take(translator.translate(keysym: keysym, pressed: true))
      guest.take(translator.translate(keysym: keysym, pressed: false))
      #expect(guest.typed == [keysym], "keysym \(String(keysym, radix: 16))")
      #expect(guest.down.isEmpty)
    }
  }

  @Test(
    "characters are right whatever modifiers the viewer holds and with caps lock",
    arguments: KeyboardLayout.allCases)
  func heldModifiers(layout: KeyboardLayout) {
    for keysym in latin1 {
      for modifier: UInt32? in [0xFFE1, 0xFFE2, 0xFE03, nil] {
        for capsLock in [false, true] {
          var translator = KeyTranslator(layout: layout)
          var guest = Guest(layout)
          guest.capsLock = capsLock
          translator.leds = capsLock ? .capsLock : []
          if let modifier { guest.take(translator.translate(keysym: modifier, pressed: true)) }
          let before = guest.down
          guest.take(translator.translate(keysym: keysym, pressed: true))
          guest.take(translator.translate(keysym: keysym, pressed: false))
          #expect(
            guest.typed.filter { $0 < 0xFE00 } == [keysym],
            "keysym \(String(keysym, radix: 16)), modifier \(modifier ?? 0), caps \(capsLock)")
          #expect(guest.down == before)
        }
      }
    }
  }

  @Test(
    "function, navigation and keypad keys reach the guest", arguments: KeyboardLayout.allCases)
  func otherKeys(layout: KeyboardLayout) {
    let navigation: [UInt32] = [
      0xFF08, 0xFF09, 0xFF0D, 0xFF1B, 0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF54, 0xFF55, 0xFF56,
      0xFF57, 0xFF63, 0xFFFF, 0xFF13, 0xFF14, 0xFF61, 0xFF67,
    ]
    let keypad =
      Array(0xFF95...0xFF9F) + Array(0xFFB0...0xFFB9) + [0xFF8D, 0xFFAA, 0xFFAB, 0xFFAD, 0xFFAF]
    // KP_Decimal and KP_Separator are one key, as the guest's layout names it.
    for keysym in navigation + Array(0xFFBE...0xFFC9) + keypad.map(UInt32.init) {
      for numLock in [false, true] {
        var translator = KeyTranslator(layout: layout)
        var guest = Guest(layout)
        guest.numLock = numLock
        translator.leds = numLock ? .numLock : []
        guest.take(translator.translate(keysym: keysym, pressed: true))
        guest.take(translator.translate(keysym: keysym, pressed: false))
        #expect(
          guest.typed.last == keysym, "keysym \(String(keysym, radix: 16)), num \(numLock)")
      }
    }
  }

  @Test(
    "keypad keys by their other names are the keys of a PC keyboard",
    arguments: [
      (0xFFAC, 0x53), (0xFFAE, 0x53), (0xFFBD, 0x59), (0xFF80, 0x39), (0xFF89, 0x0F),
      (0xFF91, 0x3B), (0xFF92, 0x3C), (0xFF93, 0x3D), (0xFF94, 0x3E),
    ] as [(UInt32, UInt16)], KeyboardLayout.allCases)
  func keypadNames(key: (keysym: UInt32, code: UInt16), layout: KeyboardLayout) {
    var translator = KeyTranslator(layout: layout)
    translator.leds = .numLock
    let events =
      translator.translate(keysym: key.keysym, pressed: true)
      + translator.translate(keysym: key.keysym, pressed: false)
    #expect(events.map(\.0) == [KeyCode(key.code), KeyCode(key.code)])
    #expect(events.map(\.1) == [true, false])
  }

  @Test("a modifier that was added for a key stays until the key is let go of")
  func modifierStays() {
    var translator = KeyTranslator(layout: .enUS)
    func codes(_ keysym: UInt32, _ pressed: Bool) -> [Int] {
      translator.translate(keysym: keysym, pressed: pressed).map {
        Int($0.0.rawValue) * ($0.1 ? 1 : -1)
      }
    }
    #expect(codes(0x41, true) == [0x2A, 0x1E])
    #expect(codes(0x41, true) == [0x1E])
    #expect(codes(0x41, false) == [-0x1E, -0x2A])
    // Rolling over to the next key: that one repeats now.
    #expect(codes(0x41, true) == [0x2A, 0x1E])
    #expect(codes(0x62, true) == [-0x2A, 0x30])
    #expect(codes(0x41, false) == [-0x1E])
    #expect(codes(0x62, false) == [-0x30])
    // The viewer lets go of the Shift that was lifted for a key.
    #expect(codes(0xFFE1, true) == [0x2A])
    #expect(codes(0x62, true) == [-0x2A, 0x30])
    #expect(codes(0xFFE1, false) == [0x2A, -0x2A])
    #expect(codes(0x62, false) == [-0x30])
    #expect(translator.releaseAll().isEmpty)
  }

  @Test("a letter released in the other case lets its key go")
  func releaseInOtherCase() {
    var translator = KeyTranslator(layout: .enUS)
    _ = translator.translate(keysym: 0xFFE1, pressed: true)
    _ = translator.translate(keysym: 0x41, pressed: true)
    _ = translator.translate(keysym: 0xFFE1, pressed: false)
    let events = translator.translate(keysym: 0x61, pressed: false)
    #expect(events.map(\.0) == [KeyCode(0x1E)])
    #expect(events.map(\.1) == [false])
  }

  @Test("Ctrl and Alt from a Windows viewer count as AltGr")
  func windowsAltGr() {
    var translator = KeyTranslator(layout: .german)
    var guest = Guest(.german)
    guest.take(translator.translate(keysym: 0xFFE3, pressed: true))
    guest.take(translator.translate(keysym: 0xFFEA, pressed: true))
    guest.take(translator.translate(keysym: 0x40, pressed: true))
    #expect(guest.typed == [0x40])
    #expect(guest.down == [0xE038, 0x10])
    guest.take(translator.translate(keysym: 0x40, pressed: false))
    #expect(guest.down == [0x1D, 0xE038])
  }

  @Test("a shortcut keeps its modifier")
  func shortcut() {
    var translator = KeyTranslator(layout: .french)
    let events =
      translator.translate(keysym: 0xFFE3, pressed: true)
      + translator.translate(keysym: 0x61, pressed: true)
    #expect(events.map(\.0) == [KeyCode(0x1D), KeyCode(0x10)])
  }

  @Test("everything held is let go at the end, and unknown keys do nothing")
  func releaseAll() {
    var translator = KeyTranslator(layout: .enUS)
    for keysym: UInt32 in [0xFFE1, 0x61, 0xFF0D] {
      _ = translator.translate(keysym: keysym, pressed: true)
    }
    #expect(Set(translator.releaseAll().map(\.0.rawValue)) == [0x2A, 0x1E, 0x1C])
    #expect(translator.releaseAll().isEmpty)
    #expect(translator.translate(keysym: 0, pressed: true).isEmpty)
    #expect(translator.translate(keysym: .max, pressed: true).isEmpty)
  }

  @Test("random keysyms never leave a modifier behind", arguments: 0..<10)
  func randomTyping(seed: Int) {
    var generator = SeededGenerator(UInt64(seed))
    var translator = KeyTranslator(layout: KeyboardLayout.allCases[seed % 3])
    var down: Set<KeyCode> = []
    for _ in 0..<500 {
      let keysym: UInt32 =
        Bool.random(using: &generator)
        ? .random(in: 0x20...0xFF, using: &generator)
        : .random(in: 0xFE00...0xFFFF, using: &generator)
      for (code, pressed) in translator.translate(
        keysym: keysym, pressed: Bool.random(using: &generator))
      {
        if pressed { down.insert(code) } else { down.remove(code) }
      }
      translator.leds = KeyboardLEDs(rawValue: .random(in: 0...7, using: &generator))
    }
    for (code, pressed) in translator.releaseAll() where !pressed { down.remove(code) }
    #expect(down.isEmpty)
  }
}
