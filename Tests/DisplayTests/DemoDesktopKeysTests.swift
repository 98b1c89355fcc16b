import DeviceModel
import Devices
import Display
import Testing

extension Keymap.Layout {
  init(_ layout: KeyboardLayout) { self = .named(layout.rawValue.text) }
}

/// The demo desktop's own keyboard driver, compiled for the host.
private struct DemoDesktop {
  private var keys: KeyDecoder
  private(set) var typed: [UInt16] = []
  private(set) var down: Set<UInt16> = []

  init(_ layout: KeyboardLayout) { keys = KeyDecoder(Keymap(.init(layout))) }

  var locks: UInt8 { keys.locks }

  mutating func take(_ events: [(KeyCode, Bool)]) {
    for (code, pressed) in events {
      if code.rawValue == 0xE11D {
        if pressed { take(bytes: [0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]) }
        continue
      }
      if code.rawValue > 0xFF { take(bytes: [UInt8(code.rawValue >> 8)]) }
      take(bytes: [UInt8(code.rawValue & 0x7F) | (pressed ? 0 : 0x80)])
    }
  }

  mutating func take(bytes: [UInt8]) {
    for byte in bytes {
      guard let event = keys.decode(byte) else { continue }
      if event.isDown { down.insert(event.code) } else { down.remove(event.code) }
      if case .character(let code) = event.action { typed.append(code) }
    }
  }
}

/// A PS/2 keyboard as the VMM has it, on a clock of the test's own.
private final class Keyboard {
  private final class Clock: DeviceClock {
    private final class Timer: DeviceTimer {
      var deadline: UInt64?
      let fire: () -> Void
      init(_ fire: @escaping () -> Void) { self.fire = fire }
      func arm(at deadline: UInt64) { self.deadline = deadline }
      func cancel() { deadline = nil }
    }

    private(set) var now: UInt64 = 0
    private var timers: [Timer] = []
    var wallClock: (seconds: Int64, nanoseconds: UInt32) { (0, 0) }

    func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer {
      timers.append(Timer(fire))
      return timers[timers.count - 1]
    }

    func advance(milliseconds: UInt64) {
      for _ in 0..<milliseconds {
        now += 1_000_000
        for timer in timers {
          guard let deadline = timer.deadline, deadline <= now else { continue }
          timer.deadline = nil
          timer.fire()
        }
      }
    }
  }

  private final class Line: InterruptLine {
    func setLevel(_ asserted: Bool) {}
  }

  private final class Machine: MachineControl {
    func requestReset(_ cause: ResetCause) {}
    func requestPowerOff() {}
    func reportRefusedSleep(type: UInt16) {}
  }

  private let clock = Clock()
  private let machine = Machine()
  private let controller: I8042
  private let data: any BusTarget
  private let command: any BusTarget

  init() {
    controller = I8042(
      machine: machine, clock: clock, keyboardInterrupt: Line(), auxiliaryInterrupt: Line(),
      state: nil)
    data = controller.dataPort
    command = controller.commandPort
    // Translated to set 1, as the demo desktop has it.
    command.write(offset: 0, width: 1, value: 0x60)
    data.write(offset: 0, width: 1, value: 0x43)
  }

  /// The bytes that the guest reads after these events and some time.
  func take(_ events: [(KeyCode, Bool)], milliseconds: UInt64 = 0) -> [UInt8] {
    for (code, pressed) in events { controller.deliver(.key(code, pressed: pressed)) }
    var bytes = drain()
    for _ in 0..<milliseconds {
      clock.advance(milliseconds: 1)
      bytes += drain()
    }
    return bytes
  }

  private func drain() -> [UInt8] {
    var bytes: [UInt8] = []
    while command.read(offset: 0, width: 1) & 1 != 0 {
      bytes.append(UInt8(truncatingIfNeeded: data.read(offset: 0, width: 1)))
    }
    return bytes
  }
}

@Suite("Viewers' characters in the demo desktop")
struct DemoDesktopKeysTests {
  private static let latin1 = Array(UInt32(0x20)...0x7E) + (0xA0...0xFF).filter { $0 != 0xAD }

  @Test(
    "every printable Latin-1 character is typed as itself", arguments: KeyboardLayout.allCases)
  func latin1Characters(layout: KeyboardLayout) {
    for keysym in Self.latin1 {
      for modifier: UInt32? in [nil, 0xFFE1, 0xFE03] {
        for capsLock in [false, true] {
          var translator = KeyTranslator(layout: layout)
          var guest = DemoDesktop(layout)
          if capsLock {
            guest.take(translator.translate(keysym: 0xFFE5, pressed: true))
            guest.take(translator.translate(keysym: 0xFFE5, pressed: false))
          }
          translator.leds = KeyboardLEDs(rawValue: guest.locks)
          if let modifier { guest.take(translator.translate(keysym: modifier, pressed: true)) }
          let before = guest.down
          guest.take(translator.translate(keysym: keysym, pressed: true))
          guest.take(translator.translate(keysym: keysym, pressed: false))
          #expect(
            guest.typed == [UInt16(keysym)],
            "keysym \(String(keysym, radix: 16)), modifier \(modifier ?? 0), caps \(capsLock)")
          #expect(guest.down == before)
        }
      }
    }
  }

  @Test(
    "the euro sign and ligatures are typed, and the keypad types numbers",
    arguments: KeyboardLayout.allCases)
  func otherCharacters(layout: KeyboardLayout) {
    var translator = KeyTranslator(layout: layout)
    var guest = DemoDesktop(layout)
    for keysym: UInt32 in [0x20AC, 0xFFB7, 0xFFAB, 0xFFBD, 0xFF80] {
      guest.take(translator.translate(keysym: keysym, pressed: true))
      guest.take(translator.translate(keysym: keysym, pressed: false))
      translator.leds = KeyboardLEDs(rawValue: guest.locks)
    }
    #expect(guest.typed == "€7+= ".text)
  }

  @Test("a key says what the keyboard's rows say on all four levels", arguments: 0..<3)
  func levels(index: Int) {
    let layout = KeyboardLayout.allCases[index]
    let keymap = Keymap(.init(layout))
    for (code, keysyms) in layout.reference where code < 0x60 {
      for level in 0..<4 where keysyms.count == 4 {
        let typed = keymap.character(
          Int(code), shift: level & 1 != 0, altGr: level & 2 != 0, capsLock: false)
        // Only what is in Latin-1 has to be there at all.
        guard (0x20...0xFF).contains(keysyms[level]), typed != nil else { continue }
        #expect(typed == UInt16(keysyms[level]), "code \(code), level \(level)")
      }
    }
  }

  @Test("numbers that are no characters, and Alt alone, type nothing")
  func numbers() {
    var guest = DemoDesktop(.enUS)
    func tap(_ codes: UInt16...) -> [(KeyCode, Bool)] {
      codes.flatMap { [(KeyCode($0), true), (KeyCode($0), false)] }
    }
    guest.take([(KeyCode(0x38), true)] + [(KeyCode(0x38), false)])
    guest.take([(KeyCode(0x38), true)] + tap(0x52, 0x48) + [(KeyCode(0x38), false)])
    let many = [UInt16](repeating: 0x49, count: 40).flatMap { tap($0) }
    guest.take([(KeyCode(0x38), true)] + many + [(KeyCode(0x38), false)])
    #expect(guest.typed.isEmpty)
    guest.take([(KeyCode(0x38), true)] + tap(0x52, 0x50, 0x51, 0x51) + [(KeyCode(0x38), false)])
    #expect(guest.typed == [233])
  }

  @Test(
    "a character that repeats stays the same character", arguments: [0x41, 0x7E, 0x40, 0x61])
  func repeats(keysym: UInt32) {
    for layout in KeyboardLayout.allCases {
      let keyboard = Keyboard()
      var translator = KeyTranslator(layout: layout)
      var guest = DemoDesktop(layout)
      translator.leds = KeyboardLEDs(rawValue: guest.locks)
      // The viewer's own repeats come too, and another key is let go of meanwhile.
      guest.take(bytes: keyboard.take(translator.translate(keysym: 0x78, pressed: true)))
      for _ in 0..<3 {
        let events = translator.translate(keysym: keysym, pressed: true)
        guest.take(bytes: keyboard.take(events, milliseconds: 400))
      }
      guest.take(bytes: keyboard.take(translator.translate(keysym: 0x78, pressed: false)))
      guest.take(bytes: keyboard.take([], milliseconds: 300))
      guest.take(bytes: keyboard.take(translator.translate(keysym: keysym, pressed: false)))
      #expect(guest.typed.count > 8, "\(layout)")
      #expect(guest.typed.dropFirst().allSatisfy { $0 == keysym }, "\(layout) \(guest.typed)")
      #expect(guest.down.isEmpty)
    }
  }
}
