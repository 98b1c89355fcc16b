/// The MC146818 clock: the time of day, and an alarm at each full minute.
struct RealTimeClock {
  struct Reading {
    var second = 0
    var minute = 0
    var hour = 0
    var day = 1
    var month = 1
    var year = 2000

    /// Days since a Sunday, modulo 7 (Sakamoto).
    var weekday: Int {
      let shifts = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4]
      let y = month < 3 ? year - 1 : year
      return (y + y / 4 - y / 100 + y / 400 + shifts[(month - 1) % 12] + day) % 7
    }
  }

  /// Opens the alarm interrupt: every minute at second 0.
  func startMinuteAlarm() {
    write(0x01, 0)
    write(0x03, 0xC0)  // any minute
    write(0x05, 0xC0)  // any hour
    write(0x0B, read(0x0B) & 0x07 | 0x20)
    _ = read(0x0C)
    Interrupts.clock.unmask()
  }

  func stopAlarm() {
    write(0x0B, read(0x0B) & 0x07)
    _ = read(0x0C)
  }

  /// Must be called for each interrupt: reading register C re-arms the line.
  func acknowledge() { _ = read(0x0C) }

  func now() -> Reading {
    while true {
      var patience = 1000
      while read(0x0A) & 0x80 != 0, patience > 0 { patience -= 1 }
      let first = sample()
      if read(0x00) == first[0] { return decode(first) }
    }
  }

  private func sample() -> [UInt8] { [0, 2, 4, 7, 8, 9, 0x32].map { read($0) } }

  private func decode(_ raw: [UInt8]) -> Reading {
    let mode = read(0x0B)
    let isBinary = mode & 0x04 != 0
    func number(_ value: UInt8) -> Int {
      isBinary ? Int(value) : Int(value >> 4) * 10 + Int(value & 15)
    }
    var hour = number(raw[2] & 0x7F)
    if mode & 0x02 == 0 { hour = hour % 12 + (raw[2] & 0x80 != 0 ? 12 : 0) }
    let century = number(raw[6])
    return Reading(
      second: number(raw[0]), minute: number(raw[1]), hour: hour,
      day: max(1, number(raw[3])), month: max(1, min(12, number(raw[4]))),
      year: (19...21).contains(century) ? century * 100 + number(raw[5]) : 2000 + number(raw[5]))
  }

  private func read(_ register: UInt8) -> UInt8 {
    Port(0x70).byte = register
    return Port(0x71).byte
  }

  private func write(_ register: UInt8, _ value: UInt8) {
    Port(0x70).byte = register
    Port(0x71).byte = value
  }
}
