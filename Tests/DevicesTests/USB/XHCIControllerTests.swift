import DeviceModel
import Devices
import Testing

@Suite("xHCI controller")
struct XHCIControllerTests {
  let bench = XHCIBench()

  @Test("says what it is, to PCI and in its capability registers")
  func capabilities() {
    let space = bench.controller.function.configuration
    #expect(space.read(0, width: 4) == 0x000D_1B36)
    #expect(space.read(8, width: 4) == 0x0C03_3001 && space.read(0x60, width: 1) == 0x30)
    #expect(space.read(0x10, width: 4) == 4, "a 64-bit memory region")
    #expect(space.read(Int(space.bytes[0x34]), width: 1) == 0x11)
    #expect(bench.read(0) == 0x0100_0040)
    #expect(bench.controller.read(offset: 0, width: 1) & 0xFF == 0x40)
    #expect(bench.controller.read(offset: 2, width: 2) & 0xFFFF == 0x0100)
    #expect(bench.read(4) == 0x0400_0110)
    #expect(bench.read(8) >> 21 == 0, "no scratchpad")
    let parameters = bench.read(0x10)
    #expect(parameters & 5 == 1, "64-bit addresses, contexts of 32 bytes")
    let place = UInt64(parameters >> 16) * 4
    #expect(bench.read(place) == 0x0200_0402 && bench.read(place + 4) == 0x2042_5355)
    #expect(bench.read(place + 8) == 0x0201)
    #expect(bench.read(place + 16) == 0x0300_0002 && bench.read(place + 24) == 0x0203)
    #expect(bench.read(0x48) == 1, "pages of 4 KiB")
    #expect(bench.isHalted)
  }

  @Test("a device waits at its port, is reset there, and each change is told once")
  func ports() {
    bench.bringUp()
    #expect(bench.port(1) == 0x2_0EE1 && bench.port(2) == 0x2_0EE1)
    #expect(bench.port(3) == 0x2A0 && bench.port(4) == 0x2A0)
    var events = bench.takeEvents()
    #expect(events.map(\.kind) == [34, 34] && events.map(\.parameter) == [1 << 24, 2 << 24])
    bench.setPort(1, 1 << 17)
    #expect(bench.port(1) == 0xEE1)
    bench.setPort(1, 0x10)
    #expect(bench.port(1) == 0x20_0E03, "enabled, in U0, with a reset's end to tell of")
    events = bench.takeEvents()
    #expect(events.map(\.kind) == [34] && events.first?.parameter == 1 << 24)
    bench.setPort(1, 1 << 21)
    #expect(bench.port(1) == 0xE03 && bench.takeEvents().isEmpty)
    bench.setPort(1, 2)
    #expect(bench.port(1) & 2 == 0, "a one disables the port")
    bench.write(0x440, 0)
    #expect(bench.port(1) & 0x201 == 0, "without power there is no device")
    bench.setPort(1, 0)
    #expect(bench.port(1) & 0x2_0201 == 0x2_0201)
    #expect(bench.takeEvents().map(\.kind) == [34])
    bench.setPort(3, 0x10)
    #expect(bench.port(3) == 0x2A0, "nothing is there to reset")
  }

  @Test("a suspended port moves nothing, and goes on when it is resumed")
  func suspend() {
    bench.bringUp()
    let slot = bench.enumerate(port: 1)
    bench.setPort(1, 0x1_0060)
    #expect(bench.port(1) >> 5 & 15 == 3)
    bench.arm(slot)
    bench.point(2, 2)
    #expect(bench.takeEvents().isEmpty)
    bench.setPort(1, 0x1_01E0)
    #expect(bench.port(1) >> 5 & 15 == 15)
    bench.setPort(1, 0x1_0000)
    #expect(bench.port(1) >> 5 & 15 == 0 && bench.port(1) >> 22 & 1 == 1)
    #expect(bench.takeEvents().map(\.kind) == [34], "what was moved meanwhile went elsewhere")
    bench.point(4, 4)
    #expect(bench.takeEvents().map(\.kind) == [32])
  }

  @Test("slots are given out, taken back, and run out")
  func slots() {
    bench.bringUp()
    bench.write(0x78, 3)
    _ = bench.takeEvents()
    #expect((1...3).map { _ in bench.command(9).slot } == [1, 2, 3])
    #expect(bench.command(9).code == 9, "no more slots are enabled")
    #expect(bench.command(10, slot: 2).code == 1)
    #expect(bench.command(10, slot: 2).code == 11)
    #expect(bench.command(9).slot == 2)
    #expect(bench.command(23).code == 1, "No Op")
    #expect(bench.command(22, slot: 1).code == 5, "Force Header")
    #expect(bench.command(18, slot: 1).code == 5, "Force Event")
    #expect(bench.command(9, slot: 0, endpoint: 1).code == 5, "there is no such slot type")
  }

  @Test("a slot goes through its states, and only by the commands that lead there")
  func slotStates() {
    bench.bringUp()
    func state(_ slot: Int) -> UInt32 { bench.words(4, at: bench.context(slot))[3] }
    let slot = bench.command(9).slot
    #expect(bench.configure(slot: slot) == 19)
    bench.putAddressInput(slot: slot, port: 1)
    #expect(bench.command(11, slot: slot, XHCIBench.input).code == 4, "the port is not enabled")
    bench.setPort(1, 0x10)
    #expect(bench.command(11, slot: slot, XHCIBench.input, 1 << 9).code == 1)
    #expect(state(slot) == 1 << 27)
    #expect(bench.words(1, at: bench.context(slot) + 0x20)[0] & 7 == 1)
    #expect(bench.request(slot, 0x80, 6, value: 0x0100, length: 8).bytes.first == 18)
    #expect(bench.command(11, slot: slot, XHCIBench.input, 1 << 9).code == 19)
    bench.putAddressInput(slot: slot, port: 1)
    #expect(bench.command(11, slot: slot, XHCIBench.input).code == 1)
    #expect(state(slot) == 2 << 27 | UInt32(slot))
    #expect(bench.configure(slot: slot) == 1)
    #expect(state(slot) == 3 << 27 | UInt32(slot))
    #expect(bench.command(12, slot: slot, 0, 1 << 9).code == 1, "deconfigured")
    #expect(state(slot) == 2 << 27 | UInt32(slot))
    #expect(bench.words(1, at: bench.context(slot) + 0x60)[0] & 7 == 0)
    #expect(bench.command(17, slot: slot).code == 1)
    #expect(state(slot) == 1 << 27 && bench.command(17, slot: slot).code == 19)
    #expect(bench.command(10, slot: slot).code == 1 && state(slot) == 0)
  }

  @Test("contexts that describe no endpoint of such a device are refused as a whole")
  func refusedContexts() {
    bench.bringUp()
    let slot = bench.address(port: 1)
    #expect(bench.configure(slot: slot, type: 3) == 17, "OUT, at an index that is IN")
    #expect(bench.configure(slot: slot, type: 4) == 17)
    #expect(bench.configure(slot: slot, type: 0) == 17)
    #expect(bench.configure(slot: slot, drop: 3) == 17)
    #expect(bench.words(1, at: bench.context(slot) + 0x60)[0] == 0)
    let other = bench.command(9).slot
    for port in [0, 1, 5, 255] {
      bench.putAddressInput(slot: other, port: port)
      #expect(bench.command(11, slot: other, XHCIBench.input).code == 17)
    }
    bench.putAddressInput(slot: other, port: 2)
    bench.put([0, 1], at: XHCIBench.input)
    #expect(bench.command(11, slot: other, XHCIBench.input).code == 17)
  }

  @Test("messages come once for what a driver has not seen, and not while it looks")
  func messages() {
    let space = bench.controller.function.configuration
    bench.controller.function.setRegister(
      Int(space.bytes[0x34]) + 2, width: 2, value: 0x8000)
    bench.write(0x3000, 0xFEE0_0000)
    bench.write(0x3008, 0x41)
    bench.write(0x300C, 0)
    bench.bringUp()
    #expect(bench.messages.sent == [0], "the second port's event adds no interrupt")
    #expect(bench.read(0x1038) & 8 == 8 && bench.status & 8 == 8)
    #expect(bench.read(0x1020) == 2, "a message acknowledges itself")
    _ = bench.takeEvents()
    _ = bench.command(23)
    #expect(bench.messages.sent == [0, 0])
    _ = bench.takeEvents(acknowledge: false)
    bench.write(0x1038, UInt32(XHCIBench.eventBase) | 8)
    #expect(bench.messages.sent == [0, 0, 0], "what was left interrupts again")
    #expect(!bench.controller.function.saveState().interruptAsserted)
  }

  @Test("without messages INTx follows the interrupter")
  func pin() {
    func level() -> Bool { bench.controller.function.saveState().interruptAsserted }
    bench.bringUp()
    #expect(level() && bench.read(0x1020) == 3)
    bench.write(0x1020, 3)
    #expect(!level() && bench.read(0x1020) == 2)
    _ = bench.takeEvents()
    _ = bench.command(23)
    #expect(level())
    bench.write(0x40, 1)
    #expect(!level(), "INTE is off")
    bench.write(0x40, 5)
    #expect(level())
    bench.write(0x40, 2)
    #expect(!level() && bench.isHalted)
  }

  @Test("a stopped command ring says where, and can be moved")
  func stoppedCommands() {
    bench.bringUp()
    _ = bench.command(23)
    #expect(bench.read(0x58) == 8, "running")
    bench.write64(0x58, 0xF000)
    bench.write(0x58, 2)
    let events = bench.takeEvents()
    #expect(events.map(\.code) == [24] && events.first?.parameter == XHCIBench.commandBase + 16)
    #expect(bench.read(0x58) == 0)
    bench.write64(0x58, 0x1_0000 | 1)
    bench.putTRB(0, 0, 23 << 10 | 1, at: 0x1_0000)
    bench.write(0x2000, 0)
    #expect(bench.takeEvents().first?.parameter == 0x1_0000)
  }

  @Test("a halted controller does nothing, and a reset one begins anew")
  func halting() {
    bench.bringUp()
    let slot = bench.enumerate(port: 1)
    bench.arm(slot)
    #expect(bench.tablet.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    bench.write(0x40, 4)
    #expect(bench.isHalted)
    #expect(!bench.tablet.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    bench.write(0x40, 5)
    #expect(bench.tablet.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    bench.write(0x40, 2)
    #expect(bench.read(0x40) == 0 && bench.read(0x70) == 0 && bench.port(1) == 0x2_0EE1)
    bench.bringUp()
    #expect(bench.enumerate(port: 1) == 1)
  }

  @Test("microframes count while it runs; saved state is found unless it was lost")
  func time() {
    #expect(bench.read(0x1000) == 0)
    bench.bringUp()
    let first = bench.read(0x1000)
    bench.clock.advance(milliseconds: 2)
    #expect(bench.read(0x1000) &- first == 16)
    _ = bench.takeEvents()
    bench.write(0x40, 1 << 10 | 5)
    bench.clock.advance(milliseconds: 2046)
    #expect(bench.read(0x1000) == 0 && bench.takeEvents().map(\.kind) == [39])
    let copy = XHCIBench(restoring: bench)
    copy.clock.advance(milliseconds: 2047)
    #expect(copy.takeEvents().isEmpty)
    copy.clock.advance(milliseconds: 1)
    #expect(copy.takeEvents().map(\.kind) == [39])
    bench.write(0x40, 0)
    bench.write(0x40, 1 << 8)
    bench.write(0x40, 1 << 9)
    #expect(bench.status & 0x700 == 0)
    bench.write(0x40, 2)
    bench.write(0x40, 1 << 9)
    #expect(bench.status & 0x700 == 0x400)
  }
}
