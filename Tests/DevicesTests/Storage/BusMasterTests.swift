import DeviceModel
import Devices
import Testing

@Suite struct BusMasterTests {
  let bench = IDEBench()
  var ide: ChannelBench { bench.primary }

  func sectors(_ first: Int, _ count: Int) -> [UInt8] {
    FakeImage.sectors(first, count)
  }

  func memory(_ address: Int, _ count: Int) -> [UInt8] {
    Array(bench.memory.bytes[address..<address + count])
  }

  @Test("a read lands where the table says, in its order")
  func read() {
    ide.describe([(0x10000, 100), (0x20000, 412), (0x8000, 512)])
    ide.command(0xC8, lba: 30, count: 2)
    #expect(ide.alternateStatus == 0x80)
    ide.start(toMemory: true)
    #expect(ide.busMasterStatus == 1)
    bench.complete()
    #expect(ide.busMasterStatus == 4 && ide.line.level)
    #expect(ide.status == 0x50 && ide.error == 0)
    #expect(memory(0x10000, 100) + memory(0x20000, 412) + memory(0x8000, 512) == sectors(30, 2))
    #expect([ide.read(2), ide.read(3)] == [0, 32])
    ide.stop()
    ide.busMasterWrite(2, 0x04)
    #expect(ide.busMasterStatus == 0)
  }

  @Test("the engine may be started before or after the image answered")
  func startLate() {
    ide.describe([(0x10000, 512)])
    ide.command(0xC8, lba: 3, count: 1)
    bench.complete()
    #expect(ide.alternateStatus == 0x58 && !ide.line.level)
    ide.start(toMemory: true)
    #expect(ide.busMasterStatus == 4 && ide.line.level)
    #expect(memory(0x10000, 512) == FakeImage.pattern(3))
    ide.stop()
    ide.describe([(0x20000, 512)])
    ide.start(toMemory: true)
    ide.command(0xC8, lba: 4, count: 1)
    bench.complete()
    #expect(ide.busMasterStatus == 4)
    #expect(memory(0x20000, 512) == FakeImage.pattern(4))
  }

  @Test("a write takes its bytes from where the table says")
  func write() {
    bench.memory.bytes.replaceSubrange(0x30000..<0x30400, with: sectors(1, 2))
    ide.describe([(0x30000, 0x200), (0x30200, 0x200)])
    ide.command(0xCA, lba: 60, count: 2)
    #expect(ide.alternateStatus == 0x58)
    ide.start(toMemory: false)
    #expect(ide.busMasterStatus == 1 && ide.alternateStatus == 0x80)
    bench.complete()
    #expect(ide.busMasterStatus == 4 && ide.status == 0x50)
    #expect(bench.disk?.bytes[60 * 512..<62 * 512].elementsEqual(sectors(1, 2)) == true)
  }

  @Test("long transfers with 48-bit addresses go in several requests")
  func long() {
    let regions = (0..<16).map { (address: UInt32(0x100000 + $0 * 0x10000), count: 0) }
    ide.describe(regions)
    ide.command48(0x25, lba: 1000, count: 2048)
    ide.start(toMemory: true)
    bench.complete()
    #expect(ide.busMasterStatus == 4 && ide.status == 0x50)
    #expect(memory(0x100000, 1 << 20) == sectors(1000, 2048))
    ide.stop()
    bench.memory.bytes.replaceSubrange(0x100000..<0x200000, with: sectors(0, 2048))
    ide.describe(regions)
    ide.command48(0x35, lba: 2000, count: 2048)
    ide.start(toMemory: false)
    bench.complete()
    #expect(ide.busMasterStatus == 4 && ide.status == 0x50)
    #expect(bench.disk?.bytes[2000 * 512..<4048 * 512].elementsEqual(sectors(0, 2048)) == true)
  }

  @Test("a table that describes more leaves the engine active after the interrupt")
  func tableTooLong() {
    ide.describe([(0x10000, 1024)])
    ide.command(0xC8, lba: 0, count: 1)
    ide.start(toMemory: true)
    bench.complete()
    #expect(ide.busMasterStatus == 5 && ide.status == 0x50)
    ide.stop()
    #expect(ide.busMasterStatus == 4)
  }

  @Test("a table that describes less stops the engine without an interrupt")
  func tableTooShort() {
    for command: UInt8 in [0xC8, 0xCA] {
      ide.describe([(0x10000, 256)])
      ide.command(command, lba: 0, count: 1)
      ide.start(toMemory: command == 0xC8)
      bench.complete()
      #expect(ide.busMasterStatus == 0 && !ide.line.level)
      #expect(ide.status == 0x50)
      ide.stop()
    }
  }

  @Test("a table or a buffer outside RAM is an error that the driver sees")
  func notMemory() {
    ide.describe([(0xF000_0000, 512)])
    ide.command(0xC8, lba: 0, count: 1)
    ide.start(toMemory: true)
    bench.complete()
    #expect(ide.busMasterStatus == 6 && ide.line.level)
    #expect(ide.status == 0x51 && ide.error == 0x04)
    ide.stop()
    ide.busMasterWrite(4, 0xFFFF_FFF0, width: 4)
    ide.busMasterWrite(2, 6)
    ide.command(0xCA, lba: 0, count: 1)
    ide.start(toMemory: false)
    #expect(ide.busMasterStatus == 6 && ide.status == 0x51)
  }

  @Test("an image error ends the transfer")
  func imageError() {
    bench.disk?.failure = BlockError(kind: .medium, context: "test")
    ide.describe([(0x10000, 512)])
    ide.command(0xC8, lba: 0, count: 1)
    ide.start(toMemory: true)
    bench.complete()
    #expect(ide.busMasterStatus == 4 && ide.status == 0x51 && ide.error == 0x40)
  }

  @Test("without the bus master bit nothing reaches memory")
  func notMaster() {
    let host = PCIHost(addressSpace: FakeAddressSpace(), interruptRouter: FakeRouter(), state: nil)
    let slot = PCISlot(device: 1, function: 1)
    host.insert(bench.controller.function, at: slot)
    host.writeConfiguration(slot, offset: 4, width: 2, value: 1)
    ide.describe([(0x10000, 512)])
    ide.command(0xC8, lba: 0, count: 1)
    ide.start(toMemory: true)
    bench.complete()
    #expect(ide.busMasterStatus == 6)
    #expect(memory(0x10000, 512) == [UInt8](repeating: 0, count: 512))
  }

  @Test("stopping in the middle leaves the drive waiting until it is reset")
  func stopped() {
    ide.describe([(0x10000, 512)])
    ide.command(0xC8, lba: 0, count: 1)
    ide.start(toMemory: true)
    ide.stop()
    bench.complete()
    #expect(ide.busMasterStatus == 0 && !ide.line.level)
    #expect(memory(0x10000, 512) == [UInt8](repeating: 0, count: 512))
    ide.control(0x04)
    ide.control(0x00)
    #expect(ide.status == 0x50)
  }

  @Test("registers read back, are byte-wide, and status bits clear by writing ones")
  func registers() {
    ide.busMasterWrite(4, 0x1234_5677, width: 4)
    #expect(ide.busMasterRead(4, width: 4) == 0x1234_5674)
    #expect(ide.busMasterRead(6) == 0x34)
    ide.busMasterWrite(5, 0xAB)
    #expect(ide.busMasterRead(4, width: 4) == 0x1234_AB74)
    ide.busMasterWrite(2, 0x60)
    #expect(ide.busMasterRead(2) == 0x60)
    ide.busMasterWrite(0, 0x08)
    #expect(ide.busMasterRead(0) == 0x08)
    #expect(ide.busMasterRead(0, width: 4) == 0xFF60_FF08)
    #expect(bench.secondary.busMasterRead(4, width: 4) == 0)
    #expect(bench.controller.function.identity.device == 0x7010)
  }

  @Test("PIO transfers do not disturb the engine, whose interrupt bit follows the line")
  func pio() {
    ide.command(0x20, lba: 0, count: 1)
    bench.complete()
    #expect(ide.busMasterStatus == 4)
    #expect(ide.readWords(512) == FakeImage.pattern(0))
  }

  @Test("a read under way survives save and restore and lands the same", arguments: 0..<4)
  func savedRead(completed: Int) throws {
    let regions = (0..<8).map { (address: UInt32(0x100000 + $0 * 0x10000), count: 0) }
    ide.describe(regions)
    ide.command48(0x25, lba: 100, count: 1024)
    ide.start(toMemory: true)
    for _ in 0..<completed { bench.disk?.completeOne() }
    let moved = try bench.moved()
    moved.complete()
    #expect(moved.primary.busMasterStatus == 4)
    #expect(moved.lines.primary.level)
    #expect(moved.primary.status == 0x50)
    #expect(memory(0x100000, 512 << 10) == sectors(100, 1024))
  }

  @Test("a write under way survives save and restore and writes the same", arguments: 0..<4)
  func savedWrite(completed: Int) throws {
    bench.memory.bytes.replaceSubrange(0x100000..<0x180000, with: sectors(0, 1024))
    let regions = (0..<8).map { (address: UInt32(0x100000 + $0 * 0x10000), count: 0) }
    ide.describe(regions)
    ide.command48(0x35, lba: 100, count: 1024)
    ide.start(toMemory: false)
    for _ in 0..<completed { bench.disk?.completeOne() }
    let moved = try bench.moved()
    moved.complete()
    #expect(moved.primary.busMasterStatus == 4)
    #expect(moved.primary.status == 0x50)
    #expect(moved.disk?.bytes[100 * 512..<1124 * 512].elementsEqual(sectors(0, 1024)) == true)
  }
}
