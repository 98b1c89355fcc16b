import DeviceModel
import Devices
import Testing

@Suite struct VirtioPCITests {
  private let version1: UInt64 = 1 << 32

  private func makeBench() -> VirtioBench {
    VirtioBench(VirtioEntropy(source: PatternSource(), state: nil))
  }

  @Test("the function is what section 4.1.2 wants, with all five structures")
  func identity() throws {
    let bench = makeBench()
    let space = bench.transport.function.configuration
    #expect(space.read(0, width: 4) == 0x1044_1AF4)
    #expect(space.read(PCIRegister.revisionID, width: 1) == 1)
    #expect(space.read(PCIRegister.status, width: 2) & 0x10 != 0)
    let offsets: [UInt8: UInt32] = [1: 0, 2: 0x3000, 3: 0x1000, 4: 0x2000]
    for (type, offset) in offsets {
      let place = try #require(bench.capability(9, type: type))
      #expect(space.read(place + 4, width: 1) == 4 && space.read(place + 8, width: 4) == offset)
    }
    #expect(bench.capability(9, type: 5) != nil)
    let messages = try #require(bench.capability(0x11))
    #expect(space.read(messages + 2, width: 2) == 1, "two vectors")
    #expect(bench.transport.read(offset: 0x12, width: 2) & 0xFFFF == 1, "one queue")
    #expect(bench.offered & version1 != 0)
  }

  @Test("features that were not offered, or no VERSION_1, are not accepted")
  func features() {
    let bench = makeBench()
    bench.negotiate(version1)
    #expect(bench.status == 0x0B)
    bench.negotiate(1 << 28)
    #expect(bench.status == 0x03)
    bench.negotiate(version1 | 1)
    #expect(bench.status == 0x03)
    bench.status = 0x07
    #expect(bench.status == 0x03, "nor is the driver up then")
  }

  @Test("only a reset takes status bits back")
  func statusBits() {
    let bench = makeBench()
    bench.negotiate(version1)
    bench.status = 1
    #expect(bench.status == 0x0B)
    bench.set(VirtioBench.queueSelect, 2, 7)
    bench.status = 0
    #expect(bench.status == 0 && bench.transport.read(offset: 0x16, width: 2) & 0xFFFF == 0)
  }

  @Test("a queue that there is not reads as size 0, and is not written")
  func noQueue() {
    let bench = makeBench()
    bench.set(VirtioBench.queueSelect, 2, 9)
    #expect(bench.transport.read(offset: VirtioBench.queueSize, width: 2) & 0xFFFF == 0)
    bench.set(VirtioBench.queueSize, 2, 8)
    bench.set(VirtioBench.queueSelect, 2, 0)
    #expect(bench.transport.read(offset: VirtioBench.queueSize, width: 2) & 0xFFFF == 64)
  }

  @Test("a vector that there is not reads back as none")
  func vectors() {
    let bench = makeBench()
    bench.set(VirtioBench.configurationVector, 2, 1)
    #expect(bench.transport.read(offset: 0x10, width: 2) & 0xFFFF == 1)
    bench.set(VirtioBench.configurationVector, 2, 2)
    #expect(bench.transport.read(offset: 0x10, width: 2) & 0xFFFF == 0xFFFF)
  }

  @Test("without MSI-X the pin is used, and reading the status lets go of it")
  func pin() {
    let bench = makeBench()
    bench.negotiate(version1)
    let queue = DriverQueue(bench, packed: false)
    bench.status = 0x0F
    queue.add([.writable(0x3_0000, 4)])
    queue.kick()
    let status = { bench.transport.function.configuration.read(PCIRegister.status, width: 2) & 8 }
    #expect(status() == 8 && bench.messages.sent == [])
    #expect(bench.transport.read(offset: 0x1000, width: 1) == 1)
    #expect(status() == 0 && bench.transport.read(offset: 0x1000, width: 1) == 0)
  }

  @Test("a masked vector is remembered, and sent when it is unmasked")
  func masks() throws {
    let bench = makeBench()
    bench.negotiate(version1)
    let queue = DriverQueue(bench, packed: false)
    bench.enableMessages(vectors: 2)
    bench.set(VirtioBench.queueVector, 2, 1)
    bench.status = 0x0F
    func work() {
      queue.add([.writable(0x3_0000, 4)])
      queue.kick()
    }
    bench.set(0x401C, 4, 1)
    work()
    work()
    #expect(bench.messages.sent == [])
    #expect(bench.transport.read(offset: 0x5000, width: 4) == 2, "pending")
    bench.set(0x401C, 4, 0)
    #expect(bench.messages.sent == [1], "once")
    #expect(bench.transport.read(offset: 0x5000, width: 4) == 0)
    // The function's mask, through configuration space.
    let host = PCIHost(
      addressSpace: FakeAddressSpace(), interruptRouter: FakeRouter(), state: nil)
    host.insert(bench.transport.function, at: PCISlot(device: 5))
    let control = try #require(bench.capability(0x11)) + 2
    host.writeConfiguration(PCISlot(device: 5), offset: control, width: 2, value: 0xC000)
    work()
    #expect(bench.messages.sent == [1])
    host.writeConfiguration(PCISlot(device: 5), offset: control, width: 2, value: 0x8000)
    #expect(bench.messages.sent == [1, 1])
    #expect(bench.messages.routes[1]?.address == 0xFEE0_0000)
    host.removeAll()
  }

  @Test("registers can be reached through configuration space alone")
  func configurationAccess() throws {
    let bench = makeBench()
    let host = PCIHost(
      addressSpace: FakeAddressSpace(), interruptRouter: FakeRouter(), state: nil)
    let slot = PCISlot(device: 5)
    host.insert(bench.transport.function, at: slot)
    let place = try #require(bench.capability(9, type: 5))
    func point(_ offset: UInt32, _ width: UInt32, bar: UInt32 = 4) {
      host.writeConfiguration(slot, offset: place + 4, width: 1, value: bar)
      host.writeConfiguration(slot, offset: place + 8, width: 4, value: offset)
      host.writeConfiguration(slot, offset: place + 12, width: 4, value: width)
    }
    point(0x14, 1)
    host.writeConfiguration(slot, offset: place + 16, width: 1, value: 3)
    #expect(bench.status == 3)
    #expect(host.readConfiguration(slot, offset: place + 16, width: 1) == 3)
    // What the driver must not ask for does nothing.
    for (offset, width, bar) in [
      (0x14, 3, 4), (0x15, 2, 4), (0x8000, 1, 4), (0x14, 1, 2),
      (0xFFFF_FFFF, 1, 4),
    ] as [(UInt32, UInt32, UInt32)] {
      point(offset, width, bar: bar)
      host.writeConfiguration(slot, offset: place + 16, width: 4, value: 0)
      _ = host.readConfiguration(slot, offset: place + 16, width: 4)
    }
    #expect(bench.status == 3)
    host.removeAll()
  }

  @Test("a function that is no bus master moves nothing")
  func noBusMaster() {
    let bench = makeBench()
    bench.negotiate(version1)
    let queue = DriverQueue(bench, packed: false)
    bench.status = 0x0F
    bench.transport.function.setRegister(PCIRegister.command, width: 2, value: 2)
    queue.add([.writable(0x3_0000, 4)])
    queue.kick()
    #expect(queue.takeUsed() == nil)
    bench.transport.function.setRegister(PCIRegister.command, width: 2, value: 6)
    queue.kick()
    #expect(queue.takeUsed()?.written == 4)
  }
}
