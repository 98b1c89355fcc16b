import DeviceModel
import Devices
import Testing

@Suite("PCI bus 0")
struct PCIHostTests {
  let space = FakeAddressSpace()
  let router = FakeRouter()
  let registers = FakeRegisters()
  let host: PCIHost
  let ports = Bus(name: "port I/O")

  init() throws {
    host = PCIHost(addressSpace: space, interruptRouter: router, state: nil)
    try ports.map(host, name: "PCI configuration", at: 0xCF8, size: 8)
  }

  func makeFunction(_ name: String = "card", pin: UInt8 = 1) -> PCIFunction {
    let function = PCIFunction(
      name: name,
      identity: PCIIdentity(
        vendor: 0x1234, device: 0x1111, revision: 2, classCode: 0x030000, interruptPin: pin))
    function.addBAR(0, size: 0x100_0000, prefetchable: true, .memory(registers))
    function.addBAR(1, size: 16, .io(registers))
    return function
  }

  func select(_ device: Int, _ register: Int, function: Int = 0, bus: Int = 0) {
    let address = 1 << 31 | bus << 16 | device << 11 | function << 8 | register & 0xFC
    ports.write(address: 0xCF8, width: 4, value: UInt64(address))
  }

  func read(_ device: Int, _ register: Int, width: Int = 4, function: Int = 0) -> UInt64 {
    select(device, register, function: function)
    return ports.read(address: 0xCFC + UInt64(register & 3), width: width)
  }

  func write(_ device: Int, _ register: Int, _ value: UInt64, width: Int = 4) {
    select(device, register)
    ports.write(address: 0xCFC + UInt64(register & 3), width: width, value: value)
  }

  @Test("an inserted function shows its identity in dwords, words and bytes")
  func identity() {
    host.insert(makeFunction(), at: PCISlot(device: 2))
    #expect(read(2, 0) == 0x1111_1234)
    #expect(read(2, 2, width: 2) == 0x1111)
    #expect(read(2, 8) == 0x0300_0002)
    #expect(read(2, 0x0B, width: 1) == 0x03)
    #expect(read(2, 0x3D, width: 1) == 1)
    #expect(read(2, 0x0E, width: 1) == 0)
  }

  @Test("an empty slot, another bus and a disabled CONFADD read as all ones")
  func absent() {
    host.insert(makeFunction(), at: PCISlot(device: 2))
    #expect(read(3, 0) == 0xFFFF_FFFF)
    #expect(read(2, 0, function: 1) == 0xFFFF_FFFF)
    select(2, 0, bus: 1)
    #expect(ports.read(address: 0xCFC, width: 4) == 0xFFFF_FFFF)
    ports.write(address: 0xCF8, width: 4, value: 2 << 11)
    #expect(ports.read(address: 0xCFC, width: 2) == 0xFFFF)
  }

  @Test("CONFADD reads back what Linux writes to detect mechanism 1")
  func detection() {
    ports.write(address: 0xCF8, width: 4, value: 0x8000_0000)
    #expect(ports.read(address: 0xCF8, width: 4) == 0x8000_0000)
    ports.write(address: 0xCF8, width: 1, value: 0x55)
    #expect(ports.read(address: 0xCF8, width: 4) == 0x8000_0000)
  }

  @Test("a byte access to 0xCF9 reaches the reset control register and nothing else does")
  func resetControl() {
    host.resetControl = registers
    ports.write(address: 0xCF9, width: 1, value: 6)
    #expect(registers.last?.value == 6)
    ports.write(address: 0xCF8, width: 4, value: 0x8000_0000)
    #expect(registers.last?.value == 6)
  }

  @Test("writing ones to a base address register shows its size and type")
  func sizing() {
    host.insert(makeFunction(), at: PCISlot(device: 2))
    write(2, 0x10, 0xFFFF_FFFF)
    write(2, 0x14, 0xFFFF_FFFF)
    write(2, 0x18, 0xFFFF_FFFF)
    #expect(read(2, 0x10) == 0xFF00_0008)
    #expect(read(2, 0x14) == 0xFFFF_FFF1)
    #expect(read(2, 0x18) == 0)
    #expect(space.mappings.isEmpty)
  }

  @Test("identity registers ignore writes")
  func readOnly() {
    host.insert(makeFunction(), at: PCISlot(device: 2))
    for register in stride(from: 0, to: 16, by: 4) { write(2, register, 0xFFFF_FFFF) }
    #expect(read(2, 0) == 0x1111_1234)
    #expect(read(2, 4, width: 2) == 0x0547)
    #expect(read(2, 8) == 0x0300_0002)
  }

  @Test("regions appear when the command register enables them, and move")
  func mapping() {
    host.insert(makeFunction(), at: PCISlot(device: 2))
    write(2, 0x10, 0xE000_0000)
    write(2, 0x14, 0xC000)
    #expect(space.mappings.isEmpty)
    write(2, 4, 2, width: 2)
    #expect(space.address(of: "card BAR0") == 0xE000_0000)
    #expect(space.address(of: "card BAR1") == nil)
    write(2, 4, 3, width: 2)
    #expect(space.address(of: "card BAR1") == 0xC000)
    write(2, 0x13, 0xE1, width: 1)
    #expect(space.address(of: "card BAR0") == 0xE100_0000)
    write(2, 4, 0, width: 2)
    #expect(space.mappings.isEmpty)
  }

  @Test("sizing while decoding takes the region away and brings it back")
  func sizingWhileEnabled() {
    host.insert(makeFunction(), at: PCISlot(device: 2))
    write(2, 0x10, 0xE000_0000)
    write(2, 4, 2, width: 2)
    write(2, 0x10, 0xFFFF_FFFF)
    #expect(space.mappings.isEmpty)
    write(2, 0x10, 0xE000_0000)
    #expect(space.address(of: "card BAR0") == 0xE000_0000)
    #expect(space.mappings.count == 1)
  }

  @Test("a region over RAM or over another is left out, and mapped when there is room")
  func overlaps() {
    host.insert(makeFunction("one"), at: PCISlot(device: 2))
    host.insert(makeFunction("two"), at: PCISlot(device: 3))
    for device in 2...3 {
      write(device, 0x10, 0xE000_0000)
      write(device, 4, 2, width: 2)
    }
    #expect(space.mappings.map(\.name) == ["one BAR0"])
    write(2, 0x10, 0x0100_0000)
    #expect(space.mappings.map(\.name) == ["two BAR0"])
    write(2, 0x10, 0xE200_0000)
    #expect(space.address(of: "one BAR0") == 0xE200_0000)
  }

  @Test("an expansion ROM needs its own enable bit, and reads as its image")
  func expansionROM() {
    let function = makeFunction()
    function.addROM([0x55, 0xAA] + Array(repeating: 7, count: 3000))
    host.insert(function, at: PCISlot(device: 2))
    write(2, 4, 2, width: 2)
    write(2, 0x30, 0xFFFF_FFFE)
    #expect(read(2, 0x30) == 0xFFFF_F000)
    write(2, 0x30, 0xE800_0000)
    #expect(space.address(of: "card ROM") == nil)
    write(2, 0x30, 0xE800_0001)
    #expect(space.address(of: "card ROM") == 0xE800_0000)
  }

  @Test("random configuration writes never overlap regions and never stop the host")
  func randomWrites() {
    var random = SystemRandomNumberGenerator()
    for device in 2...4 { host.insert(makeFunction("d\(device)"), at: PCISlot(device: device)) }
    for _ in 0..<20_000 {
      let width = [1, 2, 4][Int.random(in: 0..<3, using: &random)]
      select(Int.random(in: 1...5), Int.random(in: 0..<256), bus: Int.random(in: 0...20) / 20)
      ports.write(
        address: UInt64.random(in: 0xCF8...0xCFF), width: width,
        value: UInt64.random(in: 0...0xFFFF_FFFF))
      _ = ports.read(address: UInt64.random(in: 0xCF8...0xCFF), width: width)
    }
    let memory = space.mappings.filter { !$0.isIO }.sorted { $0.address < $1.address }
    for (low, high) in zip(memory, memory.dropFirst()) {
      #expect(low.address + low.size <= high.address)
    }
  }

  @Test("functions of one device share a pin; INTx can be disabled")
  func interrupts() {
    let first = makeFunction("first")
    let second = makeFunction("second")
    host.insert(first, at: PCISlot(device: 2))
    host.insert(second, at: PCISlot(device: 2, function: 1))
    first.setInterrupt(true)
    second.setInterrupt(true)
    first.setInterrupt(false)
    #expect(router.changes == ["2.0=1"])
    #expect(read(2, 6, width: 2, function: 1) & 8 != 0)
    second.setInterrupt(false)
    #expect(router.changes == ["2.0=1", "2.0=0"])
    write(2, 4, 0x0400, width: 2)
    first.setInterrupt(true)
    #expect(router.changes.count == 2)
    write(2, 4, 0, width: 2)
    #expect(router.changes.last == "2.0=1")
    first.reset()
    #expect(router.changes.last == "2.0=0")
  }

  @Test("function 0 says that its device has several functions")
  func multifunction() {
    host.insert(makeFunction("first"), at: PCISlot(device: 2))
    host.insert(makeFunction("second"), at: PCISlot(device: 2, function: 1))
    #expect(read(2, 0x0C) == 0x0080_0000)
    #expect(read(2, 0x0E, width: 1) == 0x80)
    #expect(read(2, 0x0E, width: 1, function: 1) == 0)
  }

  @Test("a restored function is mapped and asserts its pin as it was")
  func restore() {
    let function = makeFunction()
    host.insert(function, at: PCISlot(device: 2))
    write(2, 0x10, 0xE000_0000)
    write(2, 4, 2, width: 2)
    function.setInterrupt(true)
    let copySpace = FakeAddressSpace()
    let copyRouter = FakeRouter()
    let copyHost = PCIHost(
      addressSpace: copySpace, interruptRouter: copyRouter, state: host.saveState())
    let copy = makeFunction()
    copy.restore(function.saveState())
    copyHost.insert(copy, at: PCISlot(device: 2))
    #expect(copySpace.mappings == space.mappings)
    #expect(copyRouter.changes == ["2.0=1"])
    #expect(copyHost.read(offset: 4, width: 4) == host.read(offset: 4, width: 4))
  }

  @Test("a 64-bit region has an upper half, and may lie above 4 GiB")
  func wideRegion() {
    let function = PCIFunction(
      name: "wide",
      identity: PCIIdentity(vendor: 0x1234, device: 0x1112, classCode: 0x0C0330))
    function.addBAR(0, size: 0x4000, is64Bit: true, .memory(registers))
    host.insert(function, at: PCISlot(device: 4))
    write(4, 4, 2, width: 2)
    #expect(read(4, 0x10) == 4 && space.mappings.isEmpty)
    write(4, 0x10, 0xFFFF_FFFF)
    write(4, 0x14, 0xFFFF_FFFF)
    #expect(read(4, 0x10) == 0xFFFF_C004 && read(4, 0x14) == 0xFFFF_FFFF)
    #expect(space.address(of: "wide BAR0") == nil, "sizing maps nothing")
    write(4, 0x10, 0xC000_0000)
    write(4, 0x14, 0x12)
    #expect(space.address(of: "wide BAR0") == 0x12_C000_0000)
    write(4, 0x14, 0)
    #expect(space.address(of: "wide BAR0") == 0xC000_0000)
    #expect(space.mappings.count == 1)
  }
}
