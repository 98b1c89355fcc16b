import DeviceModel
import Devices
import Testing

@Suite struct PS2KeyboardTests {
  /// Every key of a 104-key keyboard but Pause and Print Screen, as set 1 codes.
  static let plain: [UInt16] = Array(0x01...0x53) + [0x56, 0x57, 0x58]
  static let extended: [UInt16] = [
    0xE01C, 0xE01D, 0xE035, 0xE038, 0xE047, 0xE048, 0xE049, 0xE04B, 0xE04D, 0xE04F, 0xE050,
    0xE051, 0xE052, 0xE053, 0xE05B, 0xE05C, 0xE05D, 0xE05E, 0xE05F, 0xE063,
  ]

  @Test("translated, each key gives its own set 1 code and break code", arguments: plain)
  func translatedPlain(key: UInt16) {
    let bench = InputBench()
    bench.configure(0x43)
    #expect(bench.type(key) == [UInt8(key), UInt8(key) | 0x80])
  }

  @Test("translated, each extended key gives its prefix and code", arguments: extended)
  func translatedExtended(key: UInt16) {
    let bench = InputBench()
    bench.configure(0x43)
    let code = UInt8(key & 0xFF)
    #expect(bench.type(key) == [0xE0, code, 0xE0, code | 0x80])
  }

  @Test("set 1 chosen in the keyboard gives the same codes without translation")
  func setOne() {
    let bench = InputBench()
    #expect(bench.keyboard(0xF0, 0x01) == [0xFA, 0xFA])
    for key in Self.plain { #expect(bench.type(key) == [UInt8(key), UInt8(key) | 0x80]) }
    #expect(bench.type(0xE050) == [0xE0, 0x50, 0xE0, 0xD0])
  }

  @Test(
    "set 2 codes are those of the reference",
    arguments: [
      (0x01, [0x76]), (0x02, [0x16]), (0x0E, [0x66]), (0x0F, [0x0D]), (0x1C, [0x5A]),
      (0x1D, [0x14]), (0x1E, [0x1C]), (0x2A, [0x12]), (0x36, [0x59]), (0x37, [0x7C]),
      (0x38, [0x11]), (0x39, [0x29]), (0x3A, [0x58]), (0x3B, [0x05]), (0x41, [0x83]),
      (0x44, [0x09]), (0x45, [0x77]), (0x46, [0x7E]), (0x4A, [0x7B]), (0x56, [0x61]),
      (0x57, [0x78]), (0x58, [0x07]), (0xE01C, [0xE0, 0x5A]), (0xE038, [0xE0, 0x11]),
      (0xE048, [0xE0, 0x75]), (0xE05D, [0xE0, 0x2F]),
    ] as [(UInt16, [UInt8])])
  func setTwo(key: UInt16, code: [UInt8]) {
    let bench = InputBench()
    bench.press(key)
    #expect(bench.drain() == code)
    bench.release(key)
    #expect(bench.drain() == code.dropLast() + [0xF0] + code.suffix(1))
  }

  @Test("Print Screen has its fake shift, and is SysRq with Alt and bare with Control or Shift")
  func printScreen() {
    let bench = InputBench()
    #expect(
      bench.type(0xE037) == [0xE0, 0x12, 0xE0, 0x7C, 0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12])
    bench.press(0x38)
    #expect(bench.drain() == [0x11])
    #expect(bench.type(0xE037) == [0x84, 0xF0, 0x84])
    bench.release(0x38)
    bench.press(0xE01D)
    _ = bench.drain()
    #expect(bench.type(0xE037) == [0xE0, 0x7C, 0xE0, 0xF0, 0x7C])
    bench.release(0xE01D)
    _ = bench.drain()
    bench.configure(0x43)
    #expect(
      bench.type(0xE037) == [0xE0, 0x2A, 0xE0, 0x37, 0xE0, 0xB7, 0xE0, 0xAA])
  }

  @Test("Pause sends make and break at once, never repeats, and is Break with Control")
  func pause() {
    let bench = InputBench()
    bench.press(0xE11D)
    #expect(bench.drain() == [0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77])
    bench.clock.advance(milliseconds: 5000)
    #expect(bench.drain() == [])
    bench.release(0xE11D)
    #expect(bench.drain() == [])
    bench.configure(0x43)
    #expect(bench.type(0xE11D) == [0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5])
    bench.press(0x1D)
    _ = bench.drain()
    #expect(bench.type(0xE11D) == [0xE0, 0x46, 0xE0, 0xC6])
  }

  @Test("set 3 gives one code for every key")
  func setThree() {
    let bench = InputBench()
    #expect(bench.keyboard(0xF0, 0x03) == [0xFA, 0xFA])
    #expect(bench.keyboard(0xF0, 0x00) == [0xFA, 0xFA, 0x03])
    #expect(bench.type(0x1E) == [0x1C, 0xF0, 0x1C])
    #expect(bench.type(0x01) == [0x08, 0xF0, 0x08])
    #expect(bench.type(0xE048) == [0x63, 0xF0, 0x63])
    #expect(bench.type(0xE037) == [0x57, 0xF0, 0x57])
    #expect(bench.type(0xE11D) == [0x62, 0xF0, 0x62])
    var codes: Set<UInt8> = []
    for key in Self.plain where key != 0x54 {
      codes.insert(bench.type(key).first ?? 0)
    }
    #expect(codes.count == Self.plain.count)
  }

  @Test("in set 3 keys can be told to send no break codes, or not to repeat")
  func keyTypes() {
    let bench = InputBench()
    #expect(bench.keyboard(0xF0, 0x03, 0xF9) == [0xFA, 0xFA, 0xFA])
    #expect(bench.type(0x1E) == [0x1C])
    bench.press(0x1E)
    bench.clock.advance(milliseconds: 3000)
    #expect(bench.drain() == [0x1C])
    bench.release(0x1E)
    // Make/break for A (1C) and S (1B) alone.
    #expect(bench.keyboard(0xFC, 0x1C, 0x1B, 0xF4) == [0xFA, 0xFA, 0xFA, 0xFA])
    #expect(bench.type(0x1E) == [0x1C, 0xF0, 0x1C])
    #expect(bench.type(0x1F) == [0x1B, 0xF0, 0x1B])
    #expect(bench.type(0x20) == [0x23])
    #expect(bench.keyboard(0xF7) == [0xFA])
    bench.press(0x1E)
    #expect(bench.drain() == [0x1C])
    bench.clock.advance(milliseconds: 510)
    #expect(bench.drain() == [0x1C])
    bench.release(0x1E)
    #expect(bench.drain() == [])
    #expect(bench.keyboard(0xFA) == [0xFA])
    #expect(bench.type(0x1E) == [0x1C, 0xF0, 0x1C])
  }

  @Test(
    "codes that are no key send nothing", arguments: [0x00, 0x80, 0x9E, 0xE080, 0xE200, 0xFFFF])
  func noKey(code: UInt16) {
    for set: UInt8 in 1...3 {
      let bench = InputBench()
      _ = bench.keyboard(0xF0, set)
      #expect(bench.type(code) == [])
    }
  }

  @Test("echo and identify answer, translated where the controller translates")
  func identify() {
    let bench = InputBench()
    #expect(bench.keyboard(0xEE) == [0xEE])
    #expect(bench.keyboard(0xF2) == [0xFA, 0xAB, 0x83])
    #expect(bench.keyboard(0xF0, 0x00) == [0xFA, 0xFA, 0x02])
    bench.configure(0x43)
    #expect(bench.keyboard(0xF2) == [0xFA, 0xAB, 0x41])
    #expect(bench.keyboard(0xF0, 0x00) == [0xFA, 0xFA, 0x41])
  }

  @Test("resend repeats the last byte, except a resend")
  func resend() {
    let bench = InputBench()
    bench.press(0x1E)
    #expect(bench.drain() == [0x1C])
    #expect(bench.keyboard(0xFE) == [0x1C])
    #expect(bench.keyboard(0xFE) == [0x1C])
    #expect(bench.keyboard(0xEF) == [0xFE])
    #expect(bench.keyboard(0xFE) == [0x1C])
  }

  @Test("unknown commands and wrong parameters are asked for again")
  func unknown() {
    let bench = InputBench()
    #expect(bench.keyboard(0x00) == [0xFE])
    #expect(bench.keyboard(0xEF) == [0xFE])
    #expect(bench.keyboard(0xF1) == [0xFE])
    #expect(bench.keyboard(0xF0, 0x04) == [0xFA, 0xFE])
    #expect(bench.keyboard(0xF3, 0x80) == [0xFA, 0xFE])
  }

  @Test("a command in place of a parameter is carried out")
  func commandInsteadOfParameter() {
    let bench = InputBench()
    #expect(bench.keyboard(0xED, 0xEE) == [0xFA, 0xEE])
    #expect(bench.keyboard(0x02) == [0xFE])
    #expect(bench.leds == [])
  }

  @Test("reset passes its self test, and puts back set, rate and lights")
  func reset() {
    let bench = InputBench()
    #expect(bench.keyboard(0xED, 0x07, 0xF0, 0x01, 0xF5) == Array(repeating: 0xFA, count: 5))
    #expect(bench.leds == [[.scrollLock, .numLock, .capsLock]])
    #expect(bench.type(0x1E) == [])
    #expect(bench.keyboard(0xFF) == [0xFA, 0xAA])
    #expect(bench.leds.last == [])
    #expect(bench.type(0x1E) == [0x1C, 0xF0, 0x1C])
  }

  @Test("every combination of lights reaches the machine once")
  func lights() {
    let bench = InputBench()
    for lights: UInt8 in [1, 2, 4, 7, 7, 0xF8, 0] {
      // 0xF8 is a command, all others are lights.
      _ = bench.keyboard(0xED, lights)
    }
    #expect(bench.leds.map(\.rawValue) == [1, 2, 4, 7, 0])
    #expect(bench.controller.leds == [])
  }

  @Test("scanning can be switched off and on, and enabling drops what was typed")
  func scanning() {
    let bench = InputBench()
    #expect(bench.keyboard(0xF5) == [0xFA])
    #expect(!bench.controller.accepts(.key(KeyCode(0x1E), pressed: true)))
    #expect(bench.type(0x1E) == [])
    #expect(bench.keyboard(0xF4) == [0xFA])
    #expect(bench.controller.accepts(.key(KeyCode(0x1E), pressed: true)))
    bench.command(0xAD)
    bench.press(0x1E)
    #expect(bench.keyboard(0xF4) == [0xFA])
    #expect(bench.drain() == [])
  }

  @Test("a key held down repeats after the delay and at the rate that were set")
  func typematic() {
    let bench = InputBench()
    bench.press(0x1E)
    #expect(bench.drain() == [0x1C])
    bench.clock.advance(milliseconds: 499)
    #expect(bench.drain() == [])
    bench.clock.advance(milliseconds: 1)
    #expect(bench.drain() == [0x1C])
    // 10.9 a second: one each 91.74 ms.
    bench.clock.advance(milliseconds: 91)
    #expect(bench.drain() == [])
    bench.clock.advance(milliseconds: 1)
    #expect(bench.drain() == [0x1C])
    bench.release(0x1E)
    #expect(bench.drain() == [0xF0, 0x1C])
    bench.clock.advance(milliseconds: 2000)
    #expect(bench.drain() == [])
    // 250 ms, 30 a second.
    #expect(bench.keyboard(0xF3, 0x00) == [0xFA, 0xFA])
    bench.press(0x1E)
    _ = bench.drain()
    var repeats = 0
    for _ in 0..<1250 {
      bench.clock.advance(milliseconds: 1)
      repeats += bench.drain().count
    }
    #expect((29...31).contains(repeats))
  }

  @Test("only the key pressed last repeats, until it is released")
  func lastKeyRepeats() {
    let bench = InputBench()
    bench.press(0x1E)
    bench.press(0x1F)
    _ = bench.drain()
    bench.clock.advance(milliseconds: 500)
    #expect(bench.drain() == [0x1B])
    bench.release(0x1F)
    #expect(bench.drain() == [0xF0, 0x1B])
    bench.clock.advance(milliseconds: 1000)
    #expect(bench.drain() == [])
  }

  @Test("repeats do not pile up for a guest that does not read")
  func noPileUp() {
    let bench = InputBench()
    bench.press(0x1E)
    bench.clock.advance(milliseconds: 60_000)
    #expect(bench.drain().count <= 3)
  }

  @Test("repeated presses of a key that is down, and releases of one that is up, send nothing")
  func duplicates() {
    let bench = InputBench()
    bench.press(0x1E)
    bench.press(0x1E)
    #expect(bench.drain() == [0x1C])
    bench.release(0x1E)
    bench.release(0x1E)
    #expect(bench.drain() == [0xF0, 0x1C])
  }

  @Test("typing faster than the guest reads loses nothing")
  func backlog() {
    let bench = InputBench()
    bench.configure(0x43)
    var expected: [UInt8] = []
    for key: UInt16 in 0x02...0x35 {
      bench.press(key)
      bench.release(key)
      expected += [UInt8(key), UInt8(key) | 0x80]
    }
    #expect(bench.drain() == expected)
  }

  @Test("far too much typing shows an overrun, and no key stays down")
  func overrun() {
    for (set, code): (UInt8, UInt8) in [(1, 0xFF), (2, 0x00)] {
      let bench = InputBench()
      _ = bench.keyboard(0xF0, set)
      for _ in 0..<20 {
        for key: UInt16 in 0x02...0x35 {
          bench.press(key)
          bench.release(key)
        }
      }
      let bytes = bench.drain()
      #expect(bytes.contains(code))
      let breaks = bytes.filter { set == 1 ? $0 & 0x80 != 0 && $0 != code : $0 == 0xF0 }.count
      let makes = bytes.filter { $0 != code && $0 != 0xF0 }.count - breaks
      #expect(breaks == makes)
    }
  }

  @Test("a half-read scan code, a held key and a pending parameter survive save and restore")
  func saved() throws {
    let bench = InputBench()
    bench.configure(0x43)
    bench.data(0xED)
    #expect(bench.drain() == [0xFA])
    bench.press(0xE048)
    #expect(bench.read() == 0xE0)
    bench.clock.advance(milliseconds: 400)

    let other = try bench.moved()
    #expect(other.keyboardLine.level)
    other.data(0x04)
    #expect(other.drain() == [0x48, 0xFA])
    #expect(other.leds == [.capsLock])
    other.clock.advance(milliseconds: 500)
    #expect(other.drain() == [0xE0, 0x48])
    other.release(0xE048)
    #expect(other.drain() == [0xE0, 0xC8])
  }

  @Test("a break prefix that was translated away survives save and restore")
  func savedBreak() throws {
    let bench = InputBench()
    bench.configure(0x43)
    bench.press(0x1E)
    bench.release(0x1E)
    #expect(bench.read() == 0x1E)
    let other = try bench.moved()
    #expect(other.drain() == [0x9E])
  }
}
