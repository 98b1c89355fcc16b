import DeviceModel
import Devices
import Testing

@Suite("16550A UART")
struct UART16550Tests {
  let line = FakeLine()
  let backend = FakeBackend()
  let clock = FakeClock(now: 0)
  let uart: UART16550

  init() {
    uart = UART16550(interrupt: line, backend: backend, clock: clock, state: nil)
  }

  func read(_ register: UInt64) -> UInt8 { UInt8(uart.read(offset: register, width: 1)) }
  func write(_ register: UInt64, _ value: UInt8) {
    uart.write(offset: register, width: 1, value: UInt64(value))
  }

  @Test("after reset it is an idle 16450 with an empty transmitter")
  func powerOn() {
    #expect(read(1) == 0)
    #expect(read(2) == 0x01)
    #expect(read(3) == 0)
    #expect(read(4) == 0)
    #expect(read(5) == 0x60)
    #expect(read(6) == 0xB0)
    #expect(!line.level)
  }

  @Test("the divisor is behind the latch bit and does not disturb IER")
  func divisor() {
    write(1, 0x05)
    write(3, 0x83)
    write(0, 0x34)
    write(1, 0x12)
    #expect(read(0) == 0x34)
    #expect(read(1) == 0x12)
    write(3, 0x03)
    #expect(read(1) == 0x05)
  }

  @Test("reserved bits read as zero, the scratch register keeps everything")
  func masks() {
    write(1, 0xFF)
    write(4, 0xFF)
    write(7, 0xA5)
    #expect(read(1) == 0x0F)
    #expect(read(4) == 0x1F)
    #expect(read(7) == 0xA5)
    write(5, 0xFF)
    #expect(read(5) & 0x9F == 0)
  }

  @Test("written bytes reach the backend in order")
  func transmit() {
    for byte in Array("hello".utf8) { write(0, byte) }
    #expect(backend.sent == Array("hello".utf8))
    #expect(read(5) & 0x60 == 0x60)
  }

  @Test("enabling the THRE interrupt raises it, reading IIR or writing THR clears it")
  func transmitterInterrupt() {
    write(1, 2)
    #expect(line.level)
    #expect(read(2) == 0x02)
    #expect(!line.level)
    #expect(read(2) == 0x01)
    write(0, 65)
    #expect(line.level)
    #expect(read(2) == 0x02)
    write(1, 0)
    write(1, 2)
    #expect(line.level)
  }

  @Test("what the backend does not take waits in the transmitter and is offered again")
  func backpressure() {
    write(2, 1)
    backend.capacity = 1
    write(0, 1)
    write(0, 2)
    write(0, 3)
    #expect(backend.sent == [1])
    #expect(read(5) & 0x60 == 0)
    backend.capacity = .max
    clock.advance(20_000_000)
    #expect(backend.sent == [1, 2, 3])
    #expect(read(5) & 0x60 == 0x60)
    #expect(clock.nextDeadline == nil)
  }

  @Test("a line that nobody reads is tried ever less often, up to every 10 ms")
  func patience() throws {
    write(2, 1)
    write(3, 3)
    backend.capacity = 0
    write(0, 1)
    var delays: [UInt64] = []
    for _ in 0..<12 {
      let next = try #require(clock.nextDeadline)
      delays.append(next - clock.now)
      clock.advance(next - clock.now)
    }
    #expect(Array(delays.prefix(3)) == [1_041_666, 2_083_332, 4_166_664])
    #expect(delays.last == 10_000_000)
    backend.capacity = .max
    clock.advance(10_000_000)
    #expect(backend.sent == [1])
    backend.capacity = 0
    write(0, 2)
    #expect(try #require(clock.nextDeadline) - clock.now == 1_041_666)
  }

  @Test("a byte received raises RDA, reading it clears it")
  func receive() {
    write(1, 1)
    backend.onReceive?([0x41])
    #expect(line.level)
    #expect(read(2) == 0x04)
    #expect(read(5) & 1 == 1)
    #expect(read(0) == 0x41)
    #expect(!line.level)
    #expect(read(5) & 1 == 0)
  }

  @Test("without FIFOs bytes come one at a time and none is lost")
  func receiveUnbuffered() {
    backend.onReceive?(Array("abc".utf8))
    var received: [UInt8] = []
    while read(5) & 1 == 1 { received.append(read(0)) }
    #expect(received == Array("abc".utf8))
  }

  @Test("the FIFO interrupts at its trigger level", arguments: [(0, 1), (1, 4), (2, 8), (3, 14)])
  func trigger(setting: Int, level: Int) {
    write(2, UInt8(setting << 6 | 1))
    write(1, 1)
    #expect(read(2) & 0xC0 == 0xC0)
    backend.onReceive?(Array(repeating: 9, count: level - 1))
    #expect(!line.level)
    backend.onReceive?([9])
    #expect(line.level)
    #expect(read(2) == 0xC4)
    _ = read(0)
    #expect(!line.level)
  }

  @Test("fewer bytes than the trigger level time out after four characters")
  func timeout() {
    write(3, 0x83)
    write(0, 1)
    write(1, 0)
    write(3, 0x03)
    write(2, 0xC1)
    write(1, 1)
    backend.onReceive?([1, 2])
    // 8N1 at 115,200 baud: 10 bits, 4 characters.
    clock.advance(347_000 - 1)
    #expect(!line.level)
    clock.advance(2000)
    #expect(line.level)
    #expect(read(2) == 0xCC)
    #expect(read(0) == 1)
    #expect(!line.level)
    clock.advance(400_000)
    #expect(read(2) == 0xCC)
  }

  @Test("FCR clears the FIFOs")
  func clear() {
    write(2, 1)
    backend.onReceive?([1, 2, 3])
    write(2, 3)
    #expect(read(5) & 1 == 0)
    backend.capacity = 0
    write(0, 1)
    #expect(read(5) & 0x20 == 0)
    write(2, 5)
    #expect(read(5) & 0x60 == 0x60)
  }

  @Test("a flood overruns and says so; the line status interrupt comes first")
  func overrun() {
    write(1, 5)
    backend.onReceive?(Array(repeating: 1, count: 5000))
    #expect(read(2) == 0x06)
    #expect(read(5) & 0x03 == 0x03)
    #expect(read(5) & 0x02 == 0)
    #expect(read(2) == 0x04)
  }

  @Test("a full backlog has no room, and says when half of it is read")
  func flowControl() {
    write(2, 1)
    backend.onReceive?(Array(repeating: 1, count: 100))
    #expect(backend.room?() == 4096 - 84)
    backend.onReceive?(Array(repeating: 1, count: 4096 - 84))
    #expect(backend.room?() == 0)
    #expect(read(5) & 0x02 == 0)
    for _ in 0..<2047 { _ = read(0) }
    #expect(backend.timesToldOfRoom == 0)
    _ = read(0)
    #expect(backend.timesToldOfRoom == 1)
    #expect(backend.room?() == 2048)
    for _ in 0..<2064 { _ = read(0) }
    #expect(backend.timesToldOfRoom == 1)
    #expect(read(5) & 0x03 == 0)
  }

  @Test("a break looped back is a zero byte with BI")
  func breakCondition() {
    write(3, 0x43)
    #expect(read(5) == 0x60)
    write(3, 0x03)
    write(4, 0x10)
    write(1, 4)
    write(3, 0x43)
    #expect(line.level)
    #expect(read(5) == 0x71)
    #expect(!line.level)
    #expect(read(0) == 0)
  }

  @Test("loopback returns bytes and modem lines and sends nothing")
  func loopback() {
    write(3, 3)
    write(2, 1)
    write(4, 0x10)
    for byte in UInt8(0)..<16 { write(0, byte) }
    #expect(backend.sent.isEmpty)
    #expect((UInt8(0)..<16).map { _ in read(0) } == Array(0..<16))
    write(4, 0x1A)
    #expect(read(6) & 0xF0 == 0x90)
    write(4, 0x15)
    #expect(read(6) & 0xF0 == 0x60)
  }

  @Test("loopback into a full receiver overruns it")
  func loopbackOverrun() {
    write(3, 3)
    write(4, 0x10)
    write(0, 1)
    write(0, 2)
    #expect(read(5) & 2 == 2)
    #expect(read(0) == 2)
  }

  @Test("modem changes raise the modem status interrupt, reading MSR clears it")
  func modemInterrupt() {
    write(4, 0x10)
    _ = read(6)
    write(1, 8)
    #expect(!line.level)
    write(4, 0x12)
    #expect(line.level)
    #expect(read(2) == 0x00)
    #expect(read(6) == 0x11)
    #expect(!line.level)
    write(4, 0x14)
    _ = read(6)
    write(4, 0x10)
    #expect(read(6) & 4 == 4)
  }

  @Test("a restored UART goes on in the middle of everything", arguments: 0..<64)
  func restore(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    func step(_ uart: UART16550, _ backend: FakeBackend, _ random: inout SeededGenerator)
      -> UInt64
    {
      switch random.next() % 6 {
      case 0: backend.onReceive?([UInt8(truncatingIfNeeded: random.next())])
      case 1: backend.capacity = Int(random.next() % 4)
      case 2:
        uart.write(offset: random.next() % 8, width: 1, value: random.next() & 0xFF)
      default: return uart.read(offset: random.next() % 8, width: 1)
      }
      return 0
    }
    for _ in 0..<200 {
      _ = step(uart, backend, &random)
      clock.advance(random.next() % 100_000)
    }
    let copyLine = FakeLine()
    let copyBackend = FakeBackend()
    copyBackend.capacity = backend.capacity
    let copyClock = FakeClock(now: clock.now)
    let copy = UART16550(
      interrupt: copyLine, backend: copyBackend, clock: copyClock, state: uart.saveState())
    backend.sent = []
    var same = random
    for _ in 0..<200 {
      #expect(step(uart, backend, &random) == step(copy, copyBackend, &same))
      #expect(line.level == copyLine.level)
      let time = random.next() % 100_000
      _ = same.next()
      clock.advance(time)
      copyClock.advance(time)
    }
    #expect(backend.sent == copyBackend.sent)
  }
}
