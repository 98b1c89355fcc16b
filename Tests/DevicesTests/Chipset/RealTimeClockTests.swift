import DeviceModel
import Devices
import Testing

@Suite("MC146818 real-time clock")
struct RealTimeClockTests {
  /// Friday 31 December 1999, 23:59:50 UTC.
  static let newYearsEve: Int64 = 946_684_790
  let line = FakeLine()
  let clock = FakeClock(now: 0, wallClockStart: newYearsEve * 1_000_000_000)
  let rtc: RealTimeClock

  init() {
    rtc = RealTimeClock(interrupt: line, clock: clock, nvram: [0x34: 0x80, 0x35: 7], state: nil)
  }

  func read(_ index: UInt8, of rtc: RealTimeClock? = nil) -> UInt8 {
    let rtc = rtc ?? self.rtc
    rtc.write(offset: 0, width: 1, value: UInt64(index))
    return UInt8(rtc.read(offset: 1, width: 1))
  }

  func write(_ index: UInt8, _ value: UInt8) {
    rtc.write(offset: 0, width: 1, value: UInt64(index))
    rtc.write(offset: 1, width: 1, value: UInt64(value))
  }

  /// Century, year, month, day, weekday, hour, minute, second.
  func time() -> [UInt8] { [0x32, 9, 8, 7, 6, 4, 2, 0].map { read($0) } }

  func set(_ values: [UInt8]) {
    let b = read(0x0B)
    write(0x0B, b | 0x80)
    for (index, value) in zip([UInt8(0x32), 9, 8, 7, 6, 4, 2, 0], values) { write(index, value) }
    write(0x0B, b & 0x7F)
  }

  @Test("it shows the host's time in BCD and rolls over the century")
  func bcd() {
    #expect(time() == [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x50])
    clock.advance(10_000_000_000)
    #expect(time() == [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00])
  }

  @Test("binary and 12-hour formats")
  func formats() {
    write(0x0B, 0x06)
    #expect(time() == [19, 99, 12, 31, 6, 23, 59, 50])
    write(0x0B, 0x00)
    #expect(read(4) == 0x91)
    clock.advance(10_000_000_000)
    #expect(read(4) == 0x12)
    clock.advance(12 * 3_600_000_000_000)
    #expect(read(4) == 0x92)
    write(0x0B, 0x04)
    #expect(read(4) == 0x8C)
  }

  @Test("what the guest sets runs on", arguments: [UInt8(0x02), 0x06, 0x00, 0x04])
  func setting(format: UInt8) {
    write(0x0B, format)
    let binary = format & 4 != 0
    let hour: UInt8 = format & 2 != 0 ? (binary ? 13 : 0x13) : (binary ? 0x81 : 0x81)
    set([binary ? 20 : 0x20, binary ? 24 : 0x24, 2, binary ? 28 : 0x28, 4, hour, 0, 0])
    #expect(time().last == 0)
    clock.advance(86_400_000_000_000)
    // 2024 is a leap year.
    #expect(read(7) == (binary ? 29 : 0x29))
    #expect(read(4) == hour)
    #expect(read(6) == 5)
  }

  @Test("time written while the clock runs counts at once")
  func settingWhileRunning() {
    write(0, 0x00)
    #expect(read(0) == 0)
    #expect(read(2) == 0x59)
    clock.advance(2_000_000_000)
    #expect(read(0) == 2)
  }

  @Test("SET stops the clock for reading and writing, and clears UIE")
  func stopped() {
    write(0x0B, 0x12)
    write(0x0B, 0x92)
    #expect(read(0x0B) == 0x82)
    let before = time()
    clock.advance(5_000_000_000)
    #expect(time() == before)
    #expect(read(0x0A) & 0x80 == 0)
  }

  @Test("any bytes as a time are survived")
  func nonsense() {
    var random = SeededGenerator(seed: 1)
    for _ in 0..<2000 {
      write(UInt8(random.next() & 0x7F), UInt8(truncatingIfNeeded: random.next()))
      _ = read(UInt8(random.next() & 0x7F))
      clock.advance(random.next() % 10_000_000_000)
    }
  }

  @Test("letting the divider go makes the first second half as long")
  func divider() {
    clock.advance(123_000_000)
    write(0x0B, 0x82)
    write(0x0A, 0x76)
    write(0, 0x10)
    write(0x0A, 0x26)
    write(0x0B, 0x02)
    #expect(read(0) == 0x10)
    clock.advance(499_000_000)
    #expect(read(0) == 0x10)
    clock.advance(2_000_000)
    #expect(read(0) == 0x11)
  }

  @Test("UIP warns 244 microseconds ahead")
  func updateInProgress() {
    clock.advance(999_700_000)
    #expect(read(0x0A) == 0x26)
    clock.advance(100_000)
    #expect(read(0x0A) == 0xA6)
    clock.advance(200_000)
    #expect(read(0x0A) == 0x26)
  }

  @Test("update-ended interrupts come once a second, until C is read")
  func updateEnded() {
    write(0x0B, 0x12)
    clock.advance(999_999_999)
    #expect(!line.level)
    clock.advance(1)
    #expect(line.level)
    clock.advance(3_000_000_000)
    #expect(line.edges == 1)
    #expect(read(0x0C) == 0xD0)
    #expect(!line.level)
    #expect(read(0x0C) == 0)
    clock.advance(1_000_000_000)
    #expect(line.edges == 2)
  }

  @Test("flags are set without their enables, and then ask for nothing")
  func flagsOnly() {
    clock.advance(1_000_000_000)
    #expect(read(0x0C) == 0x50)
    #expect(line.edges == 0)
    #expect(clock.nextDeadline == nil)
  }

  @Test("the alarm goes off at its time of day, and with don't-care hours every hour")
  func alarm() {
    write(5, 0x00)
    write(3, 0x00)
    write(1, 0x05)
    write(0x0B, 0x22)
    clock.advance(14_000_000_000)
    #expect(!line.level)
    clock.advance(1_000_000_000)
    #expect(line.level)
    #expect(read(0x0C) & 0xB0 == 0xB0)
    clock.advance(3_600_000_000_000)
    #expect(!line.level)
    write(5, 0xC0)
    clock.advance(3_599_000_000_000)
    #expect(!line.level)
    clock.advance(1_000_000_000)
    #expect(line.level)
  }

  @Test("an alarm that names no time never goes off")
  func invalidAlarm() {
    write(5, 0x31)
    write(0x0B, 0x22)
    clock.advance(100 * 3_600_000_000_000)
    #expect(!line.level)
  }

  @Test(
    "periodic interrupts come at the selected rate",
    arguments: [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
  func periodic(rate: Int, hertz: Int) {
    write(0x0A, UInt8(0x20 | rate))
    write(0x0B, 0x42)
    var seen = 0
    while let deadline = clock.nextDeadline, deadline <= 1_000_000_000 {
      clock.advance(deadline - clock.now)
      if line.level { seen += 1 }
      #expect(read(0x0C) & 0xC0 == 0xC0)
    }
    #expect(seen == hertz)
  }

  @Test("rate 0 and a stopped divider make no periodic interrupts")
  func periodicOff() {
    write(0x0B, 0x42)
    write(0x0A, 0x20)
    clock.advance(2_000_000_000)
    #expect(line.edges == 0)
    write(0x0A, 0x66)
    clock.advance(2_000_000_000)
    #expect(line.edges == 0)
  }

  @Test("C and D ignore writes; D says the battery is good")
  func readOnly() {
    write(0x0C, 0xFF)
    write(0x0D, 0)
    #expect(read(0x0C) == 0)
    #expect(read(0x0D) == 0x80)
    #expect(rtc.read(offset: 0, width: 1) == 0xFF)
  }

  @Test("CMOS RAM holds what the machine and the guest put there, over a reset")
  func memory() {
    #expect(read(0x34) == 0x80)
    write(0x0F, 0x0A)
    write(0x0B, 0x72)
    rtc.reset()
    #expect(read(0x0F) == 0x0A)
    #expect(read(0x0B) == 0x02)
    // Bit 7 of the index masks NMI only.
    #expect(read(0x80 | 0x0F) == 0x0A)
  }

  @Test("memory size and boot order are where SeaBIOS looks")
  func contents() {
    let bytes = CMOSContents.describe(
      low: 3 << 30, high: 1 << 30, processors: 2, boot: [.cdrom, .disk])
    #expect(bytes[0x34] == 0x00 && bytes[0x35] == 0xBF)
    #expect(bytes[0x5B] == 0x00 && bytes[0x5C] == 0x40 && bytes[0x5D] == 0)
    #expect(bytes[0x17] == 0xFF && bytes[0x18] == 0xFF)
    #expect(bytes[0x5F] == 1)
    #expect(bytes[0x3D] == 0x23 && bytes[0x38] == 0)
  }

  @Test("a restored clock keeps time and interrupts")
  func restore() {
    set([0x20, 0x24, 0x02, 0x28, 0x04, 0x13, 0x00, 0x00])
    write(0x0B, 0x12)
    clock.advance(300_000_000)
    let copyLine = FakeLine()
    let copyClock = FakeClock(now: clock.now, wallClockStart: clock.wallClockStart)
    let copy = RealTimeClock(
      interrupt: copyLine, clock: copyClock, nvram: [:], state: rtc.saveState())
    for _ in 0..<20 {
      clock.advance(271_000_000)
      copyClock.advance(271_000_000)
      #expect(line.level == copyLine.level)
      for index in UInt8(0)..<0x40 { #expect(read(index) == read(index, of: copy)) }
    }
  }
}
