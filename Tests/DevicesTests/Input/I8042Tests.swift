import DeviceModel
import Devices
import Testing

@Suite struct I8042Tests {
  @Test("after power-on the buffer is empty and nothing interrupts")
  func powerOn() {
    let bench = InputBench()
    #expect(bench.status == 0x18)
    #expect(!bench.keyboardLine.level && !bench.mouseLine.level)
    #expect(bench.drain() == [])
  }

  @Test("self test and interface tests pass, and the self test sets the system flag")
  func tests() {
    let bench = InputBench()
    #expect(bench.ask(0xAA) == [0x55])
    #expect(bench.status & 0x04 != 0)
    #expect(bench.ask(0xAB) == [0x00])
    #expect(bench.ask(0xA9) == [0x00])
  }

  @Test("a password is taken up to its zero byte, by nobody else, and never installed")
  func password() {
    let bench = InputBench()
    bench.command(0xA5)
    for byte: UInt8 in [0x1E, 0xED, 0xFF, 0x00] { bench.data(byte) }
    bench.command(0xA6)
    #expect(bench.drain() == [])
    #expect(bench.ask(0xA4) == [0xF1])
    bench.data(0xEE)
    #expect(bench.drain() == [0xEE], "the keyboard echoes what comes after it")
  }

  @Test("half of the input port is polled in the upper half of the status register")
  func polling() {
    let bench = InputBench()
    bench.command(0xC1)
    #expect(bench.status == 0x08)
    bench.command(0xC2)
    #expect(bench.status == 0x88)
    bench.press(0x1E)
    #expect(bench.status == 0x89)
    bench.command(0xAE)
    #expect(bench.status == 0x19)
  }

  @Test("the status register tells a command from data")
  func lastWrite() {
    let bench = InputBench()
    bench.command(0xAE)
    #expect(bench.status & 0x08 != 0)
    bench.data(0xEE)
    #expect(bench.status & 0x08 == 0)
  }

  @Test("the configuration byte and all of RAM read back what was written")
  func ram() {
    let bench = InputBench()
    #expect(bench.ask(0x20) == [0x03])
    for index: UInt8 in 1..<32 {
      bench.command(0x60 + index)
      bench.data(0xA0 ^ index)
    }
    bench.configure(0x47)
    #expect(bench.ask(0x20) == [0x47])
    for index: UInt8 in 1..<32 { #expect(bench.ask(0x20 + index) == [0xA0 ^ index]) }
  }

  @Test("a full buffer interrupts only where the configuration byte allows it")
  func interruptEnable() {
    let bench = InputBench()
    bench.configure(0x00)
    bench.press(0x1E)
    #expect(bench.isFull && !bench.keyboardLine.level)
    bench.configure(0x01)
    #expect(bench.keyboardLine.level && !bench.mouseLine.level)
    #expect(bench.read() == 0x1C)
    #expect(!bench.keyboardLine.level)
    bench.command(0xD3)
    bench.data(0x55)
    #expect(bench.isFull && bench.isAuxiliary && !bench.mouseLine.level)
    bench.configure(0x02)
    #expect(bench.mouseLine.level)
  }

  @Test("each byte raises the line anew")
  func edges() {
    let bench = InputBench()
    bench.press(0xE048)
    bench.release(0xE048)
    #expect(bench.drain() == [0xE0, 0x75, 0xE0, 0xF0, 0x75])
    #expect(bench.keyboardLine.edges == 5)
    #expect(!bench.keyboardLine.level)
  }

  @Test("an empty buffer returns the last byte again")
  func lastByte() {
    let bench = InputBench()
    bench.press(0x1E)
    #expect(bench.read() == 0x1C)
    #expect(bench.read() == 0x1C)
    #expect(bench.status & 0x01 == 0)
  }

  @Test("a disabled keyboard keeps its bytes until it is enabled")
  func disableKeyboard() {
    let bench = InputBench()
    bench.command(0xAD)
    #expect(bench.ask(0x20) == [0x13])
    bench.press(0x1E)
    #expect(!bench.isFull)
    bench.command(0xAE)
    #expect(bench.drain() == [0x1C])
  }

  @Test("a disabled mouse keeps its bytes until it is enabled")
  func disableMouse() {
    let bench = InputBench()
    #expect(bench.mouse(0xF4) == [0xFA])
    bench.command(0xA7)
    #expect(bench.ask(0x20) == [0x23])
    bench.move(1, 0)
    #expect(!bench.isFull)
    bench.command(0xA8)
    #expect(bench.drain() == [0x08, 1, 0])
  }

  @Test("a byte for a device enables its interface")
  func writeEnables() {
    let bench = InputBench()
    bench.configure(0x33)
    #expect(bench.keyboard(0xEE) == [0xEE])
    #expect(bench.mouse(0xE6) == [0xFA])
    #expect(bench.ask(0x20) == [0x03])
  }

  @Test("bytes written into the output buffer come from the side they name")
  func loopback() {
    let bench = InputBench()
    bench.command(0xD2)
    bench.data(0x12)
    #expect(bench.isFull && !bench.isAuxiliary && bench.keyboardLine.level)
    #expect(bench.read() == 0x12)
    // Linux looks for the auxiliary port, and for multiplexing, this way.
    for byte: UInt8 in [0x5A, 0xF0, 0x56, 0xA4] {
      bench.command(0xD3)
      bench.data(byte)
      #expect(bench.isAuxiliary && bench.mouseLine.level)
      #expect(bench.read() == byte)
    }
  }

  @Test("the ports can be read, and the output port shows who filled the buffer")
  func ports() {
    let bench = InputBench()
    #expect(bench.ask(0xC0) == [0x80])
    #expect(bench.ask(0xD0) == [0xCF])
    #expect(bench.ask(0xE0) == [0x03])
    bench.configure(0x33)
    #expect(bench.ask(0xE0) == [0x00])
    bench.configure(0x03)
    bench.press(0x1E)
    bench.command(0xD0)
    #expect(bench.read() == 0x1C)
    #expect(bench.read() == 0xDF)
  }

  @Test("the A20 gate is remembered")
  func a20() {
    let bench = InputBench()
    bench.command(0xDD)
    #expect(bench.ask(0xD0) == [0xCD])
    bench.command(0xDF)
    #expect(bench.ask(0xD0) == [0xCF])
    bench.command(0xD1)
    bench.data(0xDD)
    #expect(bench.ask(0xD0) == [0xCD])
    #expect(bench.machine.resets.isEmpty)
  }

  @Test("pulsing output bit 0, or writing it low, resets the machine")
  func reset() {
    let bench = InputBench()
    bench.command(0xFF)
    bench.command(0xF1)
    #expect(bench.machine.resets.isEmpty)
    bench.command(0xFE)
    bench.command(0xF0)
    bench.command(0xD1)
    bench.data(0x02)
    #expect(bench.machine.resets == Array(repeating: .keyboardController, count: 3))
  }

  @Test("there is no password, and unknown commands answer nothing")
  func others() {
    let bench = InputBench()
    #expect(bench.ask(0xA4) == [0xF1])
    for command: UInt8 in [0x00, 0x1F, 0x40, 0x80, 0xA1, 0xAC, 0xB0, 0xC8, 0xD5, 0xE1] {
      #expect(bench.ask(command) == [])
    }
  }

  @Test("a new command ends one that waits for its byte")
  func interruptedCommand() {
    let bench = InputBench()
    bench.command(0x60)
    bench.command(0xAE)
    bench.data(0xEE)
    #expect(bench.drain() == [0xEE])
    #expect(bench.ask(0x20) == [0x03])
  }

  @Test("the controller's answers go before the devices' bytes")
  func order() {
    let bench = InputBench()
    #expect(bench.mouse(0xF4) == [0xFA])
    bench.move(5, 0)
    bench.press(0x1E)
    bench.command(0x20)
    #expect(bench.drain() == [0x08, 0x03, 0x1C, 5, 0])
  }

  @Test("a guest that only writes cannot make queues grow")
  func flood() throws {
    let bench = InputBench()
    for round in 0..<100_000 {
      bench.command(0x20)
      bench.data(UInt8(truncatingIfNeeded: round))
      bench.command(0xD4)
      bench.data(0xE9)
    }
    #expect(bench.drain().count < 64)
  }

  @Test("a hard reset forgets everything and releases the lines")
  func hardReset() {
    let bench = InputBench()
    bench.configure(0x47)
    #expect(bench.keyboard(0xED, 0x02) == [0xFA, 0xFA])
    #expect(bench.mouse(0xF4) == [0xFA])
    bench.press(0x1E)
    bench.controller.reset()
    #expect(bench.status == 0x18)
    #expect(!bench.keyboardLine.level)
    #expect(bench.leds == [.numLock, []])
    #expect(bench.ask(0x20) == [0x03])
    bench.move(1, 1)
    #expect(bench.drain() == [])
  }

  @Test("SeaBIOS's start of controller and keyboard goes as it expects")
  func seabios() {
    let bench = InputBench()
    #expect(bench.drain() == [])
    #expect(bench.ask(0xAA) == [0x55])
    #expect(bench.ask(0xAB) == [0x00])
    bench.configure(0x30)
    #expect(bench.keyboard(0xFF) == [0xFA, 0xAA])
    #expect(bench.keyboard(0xF5) == [0xFA])
    bench.configure(0x30)
    #expect(bench.keyboard(0xF0, 0x02) == [0xFA, 0xFA])
    bench.configure(0x61)
    #expect(bench.keyboard(0xF4) == [0xFA])
    #expect(bench.type(0x1E) == [0x1E, 0x9E])
    #expect(bench.keyboardLine.edges >= 2)
  }

  @Test("Linux's probing of controller, keyboard and mouse goes as it expects")
  func linux() {
    let bench = InputBench()
    bench.configure(0x61)
    #expect(bench.ask(0x20) == [0x61])
    bench.configure(0x70)
    #expect(bench.ask(0xAA) == [0x55])
    bench.command(0xA7)
    #expect(bench.ask(0x20).first.map { $0 & 0x20 } == 0x20)
    bench.command(0xA8)
    #expect(bench.ask(0x20).first.map { $0 & 0x20 } == 0)
    bench.configure(0x43)
    #expect(bench.keyboard(0xF2) == [0xFA, 0xAB, 0x41])
    #expect(bench.keyboard(0xED, 0x00) == [0xFA, 0xFA])
    #expect(bench.keyboard(0xF3, 0x00) == [0xFA, 0xFA])
    #expect(bench.keyboard(0xF4) == [0xFA])
    #expect(bench.mouse(0xFF) == [0xFA, 0xAA, 0x00])
    #expect(
      bench.mouse(0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF2) == [
        0xFA, 0xFA, 0xFA, 0xFA, 0xFA, 0xFA, 0xFA, 3,
      ])
    #expect(bench.mouse(0xF3, 200, 0xF3, 200, 0xF3, 80, 0xF2).last == 4)
    #expect(bench.mouse(0xE8, 3, 0xE6, 0xF3, 100, 0xF4) == Array(repeating: 0xFA, count: 6))
    bench.move(3, -4, wheel: 1, [.left, .side])
    #expect(bench.drain() == [0x09, 3, 4, 0x1F])
  }
}
