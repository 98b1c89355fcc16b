/// Numbers as text and back.
enum Decimal {
  static func value(_ text: some Sequence<UInt16>) -> Int? {
    var result = 0
    var isEmpty = true
    for code in text {
      guard (0x30...0x39).contains(code), result < 1_000_000 else { return nil }
      result = result * 10 + Int(code - 0x30)
      isEmpty = false
    }
    return isEmpty ? nil : result
  }

  static func twoDigits(_ value: Int) -> Text {
    [UInt16(0x30 + value / 10 % 10), UInt16(0x30 + value % 10)]
  }
}

/// The time as the panel and the terminal write it.
enum Clock {
  private static let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]

  static func short(_ time: RealTimeClock.Reading) -> Text {
    "\(days[time.weekday % 7]) \(time.day) \(months[(time.month - 1) % 12])  ".text
      + Decimal.twoDigits(time.hour) + [0x3A] + Decimal.twoDigits(time.minute)
  }

  static func long(_ time: RealTimeClock.Reading) -> Text {
    short(time) + [0x3A] + Decimal.twoDigits(time.second) + " \(time.year)".text
  }
}

/// UTF-8 from outside; what is malformed or beyond the basic plane becomes "?".
enum Decoding {
  static func text(_ bytes: [UInt8]) -> Text {
    var result: Text = []
    var index = 0
    while index < bytes.count {
      let lead = bytes[index]
      let extra = lead < 0x80 ? 0 : lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC2 ? 1 : -1
      guard extra >= 0, index + extra < bytes.count else {
        result.append(0x3F)
        index += 1
        continue
      }
      var code = extra == 0 ? UInt32(lead) : UInt32(lead) & (0x3F >> UInt32(extra))
      for next in bytes[(index + 1)..<(index + 1 + extra)] {
        code = code << 6 | UInt32(next & 0x3F)
      }
      result.append(code < 0x1_0000 && code >= 0x20 ? UInt16(code) : 0x3F)
      index += extra + 1
    }
    return result
  }

  static func bytes(_ text: Text) -> [UInt8] {
    text.flatMap { code -> [UInt8] in
      let c = UInt32(code)
      if c < 0x80 { return [UInt8(c)] }
      if c < 0x800 { return [UInt8(0xC0 | c >> 6), UInt8(0x80 | c & 0x3F)] }
      return [UInt8(0xE0 | c >> 12), UInt8(0x80 | c >> 6 & 0x3F), UInt8(0x80 | c & 0x3F)]
    }
  }
}
