import DeviceModel
import Devices
import Testing

@Suite("ACPI power management")
struct PowerManagementTests {
  let line = FakeLine()
  let clock = FakeClock(now: 0)
  let machine = FakeMachine()
  let device: PowerManagement

  init() {
    device = PowerManagement(interrupt: line, clock: clock, machine: machine, state: nil)
  }

  func read(_ offset: UInt64, _ width: Int) -> UInt64 { device.read(offset: offset, width: width) }
  func write(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    device.write(offset: offset, width: width, value: value)
  }

  @Test("the registers appear where the base register says, once enabled")
  func window() {
    let space = FakeAddressSpace()
    let host = PCIHost(addressSpace: space, interruptRouter: FakeRouter(), state: nil)
    let slot = PCISlot(device: 1, function: 3)
    host.insert(device.function, at: slot)
    #expect(host.readConfiguration(slot, offset: 0, width: 4) == 0x7113_8086)
    host.writeConfiguration(slot, offset: 0x40, width: 4, value: 0x0601)
    #expect(space.mappings.isEmpty)
    host.writeConfiguration(slot, offset: 0x80, width: 1, value: 1)
    #expect(space.mappings.map(\.address) == [0x600])
    #expect(space.mappings.map(\.size) == [64])
    host.writeConfiguration(slot, offset: 0x80, width: 1, value: 0)
    #expect(space.mappings.isEmpty)
  }

  @Test("SeaBIOS finds system management mode already set up")
  func systemManagement() {
    #expect(device.function.configuration.read(0x58, width: 4) & 1 << 25 != 0)
  }

  @Test("SLP_EN with the S5 type switches off, other types do nothing")
  func sleep() {
    write(4, 2, 0x3400)
    #expect(machine.powerOffs == 0 && machine.resets.isEmpty)
    #expect(machine.refusedSleeps == [5])
    // S3, again and again: told of once until the next reset.
    write(4, 2, 0x2400)
    #expect(machine.refusedSleeps == [5] && machine.powerOffs == 0)
    #expect(read(0, 2) == 0 && !line.level)
    device.reset()
    write(4, 2, 0x2400)
    #expect(machine.refusedSleeps == [5, 1] && machine.powerOffs == 0)
    write(4, 2, 0x2000)
    #expect(machine.powerOffs == 1)
    #expect(read(4, 2) & 0x2000 == 0)
  }

  @Test("the command port switches between legacy and ACPI mode")
  func modes() {
    device.commandPorts.write(offset: 0, width: 1, value: 0xF1)
    #expect(read(4, 2) == 1)
    #expect(device.commandPorts.read(offset: 0, width: 1) == 0xF1)
    device.commandPorts.write(offset: 0, width: 1, value: 0xF0)
    #expect(read(4, 2) == 0)
    device.commandPorts.write(offset: 1, width: 1, value: 0x5A)
    #expect(device.commandPorts.read(offset: 1, width: 1) == 0x5A)
  }

  @Test("the power button interrupts in ACPI mode, until its status is cleared")
  func powerButton() {
    device.pressPowerButton()
    #expect(read(0, 2) == 0x0100)
    #expect(!line.level)
    write(2, 2, 0x0100)
    #expect(!line.level)
    #expect(!device.heedsPowerButton)
    device.commandPorts.write(offset: 0, width: 1, value: 0xF1)
    #expect(line.level)
    #expect(device.heedsPowerButton)
    write(0, 2, 0x0100)
    #expect(!line.level)
    #expect(read(0, 2) == 0)
  }

  @Test("status clears only where ones are written; enables keep implemented bits")
  func masks() {
    device.pressPowerButton()
    write(0, 2, 0xFEFF)
    #expect(read(0, 2) == 0x0100)
    write(2, 2, 0xFFFF)
    #expect(read(2, 2) == 0x0721)
    #expect(read(0, 4) == 0x0721_0100)
    write(1, 1, 1)
    #expect(read(0, 4) == 0x0721_0000)
  }

  @Test("the sleep button interrupts like the power button, under a bit of its own")
  func sleepButton() {
    device.commandPorts.write(offset: 0, width: 1, value: 0xF1)
    device.pressSleepButton()
    #expect(read(0, 2) == 0x0200 && !line.level)
    write(2, 2, 0x0200)
    #expect(line.level)
    write(0, 2, 0x0200)
    #expect(read(0, 2) == 0 && !line.level)
  }

  @Test("a general purpose event interrupts while it is enabled and not cleared")
  func generalEvents() {
    device.commandPorts.write(offset: 0, width: 1, value: 0xF1)
    device.raise(generalEvent: 5)
    device.raise(generalEvent: 4)
    device.raise(generalEvent: 99)
    device.raise(generalEvent: -1)
    #expect(read(12, 4) == 0x0020 && !line.level)
    write(14, 2, 0xFFFF)
    #expect(read(12, 4) == 0x0020_0020 && line.level)
    write(12, 1, 0xDF)
    #expect(line.level)
    let copyLine = FakeLine()
    let copy = PowerManagement(
      interrupt: copyLine, clock: clock, machine: machine, state: device.saveState())
    #expect(copyLine.level && copy.read(offset: 12, width: 4) == 0x0020_0020)
    write(12, 1, 0x20)
    #expect(read(12, 4) == 0x0020_0000 && !line.level)
  }

  @Test("the timer counts 24 bits at 3.579545 MHz")
  func timer() {
    #expect(read(8, 4) == 0)
    clock.advance(1_000_000_000)
    #expect(read(8, 4) == 3_579_545)
    clock.advance(999_000_000_000)
    #expect(read(8, 4) == 3_579_545_000 & 0xFF_FFFF)
    clock.advance(40 * 86_400_000_000_000)
    #expect(read(8, 4) <= 0xFF_FFFF)
  }

  @Test("TMR_STS is set, and interrupts, when the top bit of the timer toggles")
  func timerStatus() {
    device.commandPorts.write(offset: 0, width: 1, value: 0xF1)
    write(2, 2, 1)
    clock.advance(2_343_400_000)
    #expect(read(0, 2) == 0)
    clock.advance(200_000)
    #expect(line.level)
    #expect(read(0, 2) == 1)
    write(0, 2, 1)
    #expect(!line.level)
    clock.advance(2_343_500_000)
    #expect(line.edges == 2)
    write(2, 2, 0)
    #expect(!line.level)
    #expect(clock.nextDeadline == nil)
  }

  @Test("a restored block has the same status, timer and pending interrupt")
  func restore() {
    device.commandPorts.write(offset: 0, width: 1, value: 0xF1)
    write(2, 2, 0x0101)
    device.pressPowerButton()
    clock.advance(2_000_000_000)
    let copyLine = FakeLine()
    let copyClock = FakeClock(now: clock.now)
    let copy = PowerManagement(
      interrupt: copyLine, clock: copyClock, machine: machine, state: device.saveState())
    #expect(copyLine.level)
    clock.advance(400_000_000)
    copyClock.advance(400_000_000)
    for offset in stride(from: UInt64(0), to: 64, by: 4) {
      #expect(copy.read(offset: offset, width: 4) == read(offset, 4))
    }
    #expect(read(0, 2) == 0x0101)
  }

  @Test("reset leaves ACPI mode and hides the registers")
  func reset() {
    device.commandPorts.write(offset: 0, width: 1, value: 0xF1)
    write(2, 2, 0x0100)
    device.pressPowerButton()
    device.reset()
    #expect(!line.level)
    #expect(read(0, 4) == 0)
    #expect(read(4, 2) == 0)
    #expect(device.function.configuration.read(0x80, width: 1) == 0)
  }
}
