import DeviceModel
import LinuxSystem
import Machine
import TestSupport

/// A screen in text mode as firmware sends it along a serial line.
final class Console {
  private let peer: SerialPeer
  private var text = ""
  /// What of an escape sequence has come.
  private var escape = ""

  init(_ peer: SerialPeer) { self.peer = peer }

  /// Types on the keyboard, each key once the one before it is on the screen: few of them wait
  /// in a keyboard.
  func type(_ text: String, on machine: Machine) throws {
    for character in text {
      machine.type(String(character))
      if character != "\n" { try wait(for: String(character), on: machine) }
    }
  }

  /// Takes all up to `wanted`, and returns what was before it. Interpreted firmware takes its
  /// time.
  @discardableResult
  func wait(for wanted: String, on machine: Machine, seconds: UInt64 = 900) throws -> String {
    let deadline = MonotonicClock.now + seconds * 1_000_000_000
    let poller = try Poller()
    try poller.add(peer.socket.descriptor, token: 0)
    while true {
      if let place = text.firstRange(of: wanted) {
        defer { text = String(text[place.upperBound...]) }
        return String(text[..<place.lowerBound])
      }
      guard machine.status == .running, MonotonicClock.now < deadline else {
        throw NeverCame(what: "\(wanted); \(machine.stuckReason ?? "it says"): \(text)")
      }
      guard try !poller.wait(milliseconds: 1000).isEmpty else { continue }
      for byte in try peer.socket.receive().bytes { take(Character(Unicode.Scalar(byte))) }
    }
  }

  /// Leaves out escape sequences: ESC c, and ESC [ up to a letter.
  private func take(_ character: Character) {
    if escape.isEmpty {
      if character == "\u{1B}" { escape = "\u{1B}" } else { text.append(character) }
    } else {
      escape.append(character)
      if character.isLetter { escape = "" }
    }
  }
}

extension MachineConfiguration {
  /// Has SeaBIOS send what is written on the screen along the serial line, too.
  mutating func sendScreen(to socket: String) {
    serial = .socket(socket)
    firmwareFiles = [.init(name: "etc/sercon-port", bytes: [0xF8, 0x03, 0, 0, 0, 0, 0, 0])]
  }
}

extension Machine {
  /// Lower case letters, digits, blanks, ends of lines and "-=,./", on the keyboard.
  func type(_ text: String) {
    let rows: [(first: UInt16, keys: String)] = [
      (0x02, "1234567890-="), (0x10, "qwertyuiop"), (0x1C, "\n"), (0x1E, "asdfghjkl"),
      (0x2C, "zxcvbnm,./"), (0x39, " "),
    ]
    for character in text {
      for row in rows {
        guard let place = row.keys.firstIndex(of: character) else { continue }
        let offset = row.keys.distance(from: row.keys.startIndex, to: place)
        press([KeyCode(row.first + UInt16(offset))], milliseconds: 20)
      }
    }
  }
}
