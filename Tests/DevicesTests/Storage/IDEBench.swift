import DeviceModel
import Devices
import Snapshot
import Testing

/// An IDE controller with a driver's view of its primary channel.
final class IDEBench {
  let disk: FakeImage?
  let cd: FakeImage?
  let memory: FakeMemory
  let lines = (primary: FakeLine(), secondary: FakeLine())
  let controller: IDEController

  /// A disk as primary device 0 and a CD-ROM drive as secondary device 0.
  init(
    disk: FakeImage? = FakeImage(sectors: 4096), cd: FakeImage? = FakeImage(sectors: 4096),
    memory: FakeMemory = FakeMemory(size: 4 << 20), state: IDEController.State? = nil
  ) {
    self.disk = disk
    self.cd = cd
    self.memory = memory
    controller = IDEController(
      attachments: [disk.map { .disk($0, serial: "CV000001") }, nil, .cdrom(cd), nil],
      memory: memory, interrupts: lines, state: state)
    if state == nil {
      let host = PCIHost(
        addressSpace: FakeAddressSpace(), interruptRouter: FakeRouter(), state: nil)
      host.insert(controller.function, at: PCISlot(device: 1, function: 1))
      host.writeConfiguration(PCISlot(device: 1, function: 1), offset: 4, width: 2, value: 5)
    }
  }

  /// A new controller on the same images and memory, with this one's state taken
  /// through bytes.
  func moved() throws -> IDEBench {
    let bytes = try StateEncoder().encode(controller.saveState())
    let state = try StateDecoder().decode(IDEController.State.self, from: bytes)
    // The requests of the old machine are never completed.
    return IDEBench(
      disk: disk.map(FakeImage.init(sameAs:)), cd: cd.map(FakeImage.init(sameAs:)),
      memory: memory, state: state)
  }

  var primary: ChannelBench { ChannelBench(self, controller.primary, lines.primary, base: 0) }
  var secondary: ChannelBench {
    ChannelBench(self, controller.secondary, lines.secondary, base: 8)
  }

  func complete() {
    disk?.complete()
    cd?.complete()
  }
}

extension FakeImage {
  convenience init(sameAs other: FakeImage) {
    self.init(sectors: 0)
    bytes = other.bytes
  }
}

/// One channel's registers.
struct ChannelBench {
  let bench: IDEBench
  let channel: IDEChannel
  let line: FakeLine
  let base: Int

  init(_ bench: IDEBench, _ channel: IDEChannel, _ line: FakeLine, base: Int) {
    self.bench = bench
    self.channel = channel
    self.line = line
    self.base = base
  }

  func read(_ register: Int) -> UInt8 {
    UInt8(channel.commandBlock.read(offset: UInt64(register), width: 1))
  }

  func write(_ register: Int, _ value: UInt8) {
    channel.commandBlock.write(offset: UInt64(register), width: 1, value: UInt64(value))
  }

  /// Reads the status and so takes the interrupt away.
  var status: UInt8 { read(7) }
  var alternateStatus: UInt8 { UInt8(channel.controlBlock.read(offset: 0, width: 1)) }
  var error: UInt8 { read(1) }

  func control(_ value: UInt8) {
    channel.controlBlock.write(offset: 0, width: 1, value: UInt64(value))
  }

  func command(
    _ command: UInt8, lba: UInt32 = 0, count: UInt8 = 0, features: UInt8 = 0, device: UInt8 = 0
  ) {
    write(6, 0xE0 | device << 4 | UInt8(lba >> 24))
    write(1, features)
    write(2, count)
    write(3, UInt8(truncatingIfNeeded: lba))
    write(4, UInt8(truncatingIfNeeded: lba >> 8))
    write(5, UInt8(truncatingIfNeeded: lba >> 16))
    write(7, command)
  }

  func command48(_ command: UInt8, lba: UInt64, count: UInt16) {
    write(6, 0xE0)
    for shift: UInt64 in [24, 0] {
      write(2, UInt8(truncatingIfNeeded: shift == 24 ? count >> 8 : count))
      write(3, UInt8(truncatingIfNeeded: lba >> shift))
      write(4, UInt8(truncatingIfNeeded: lba >> (shift + 8)))
      write(5, UInt8(truncatingIfNeeded: lba >> (shift + 16)))
    }
    write(7, command)
  }

  func readWords(_ count: Int, width: Int = 2) -> [UInt8] {
    (0..<count / width).flatMap { _ in
      let value = channel.commandBlock.read(offset: 0, width: width)
      return (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) }
    }
  }

  func writeWords(_ bytes: [UInt8], width: Int = 2) {
    for at in stride(from: 0, to: bytes.count, by: width) {
      let value = (0..<width).reduce(UInt64(0)) { $0 | UInt64(bytes[at + $1]) << UInt64($1 * 8) }
      channel.commandBlock.write(offset: 0, width: width, value: value)
    }
  }

  // MARK: Packets

  /// Sends a packet and lets the drive work.
  func packet(_ bytes: [UInt8], dma: Bool = false, limit: Int = 0xFFFE) {
    write(6, 0xA0)
    write(1, dma ? 1 : 0)
    write(4, UInt8(truncatingIfNeeded: limit))
    write(5, UInt8(truncatingIfNeeded: limit >> 8))
    write(7, 0xA0)
    #expect(alternateStatus & 0x88 == 0x08)
    #expect(read(2) & 3 == 1)
    writeWords(bytes + Array(repeating: 0, count: 12 - bytes.count))
    bench.complete()
  }

  /// Takes the data of a packet command, block by block, to its end.
  func packetData() -> [UInt8] {
    var bytes: [UInt8] = []
    while alternateStatus & 0x08 != 0 && bytes.count < 1 << 22 {
      #expect(read(2) & 3 == 2)
      let count = Int(read(4)) | Int(read(5)) << 8
      #expect(status & 0x89 == 0x08)
      bytes += readWords((count + 1) & ~1).prefix(count)
      bench.complete()
    }
    return bytes
  }

  func ask(_ packet: [UInt8], limit: Int = 0xFFFE) -> [UInt8] {
    self.packet(packet, limit: limit)
    let bytes = packetData()
    #expect(read(2) & 3 == 3)
    return bytes
  }

  /// Key, code and qualifier of the last failure.
  var sense: [UInt8] {
    let data = ask([0x03, 0, 0, 0, 18])
    return data.count == 18 ? [data[2], data[12], data[13]] : []
  }

  // MARK: Bus master

  func busMasterRead(_ offset: Int, width: Int = 1) -> UInt32 {
    UInt32(
      bench.controller.busMasterPorts.read(offset: UInt64(base + offset), width: width))
  }

  func busMasterWrite(_ offset: Int, _ value: UInt32, width: Int = 1) {
    bench.controller.busMasterPorts.write(
      offset: UInt64(base + offset), width: width, value: UInt64(value))
  }

  /// Active, error and interrupt bits.
  var busMasterStatus: UInt32 { busMasterRead(2) & 7 }

  /// Makes a descriptor table at 0x1000 and points the engine to it.
  func describe(_ regions: [(address: UInt32, count: Int)], endsTable: Bool = true) {
    var table: [UInt8] = []
    for (index, region) in regions.enumerated() {
      let last: UInt32 = endsTable && index == regions.count - 1 ? 0x8000_0000 : 0
      for word in [region.address, UInt32(region.count & 0xFFFF) | last] {
        table += (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt32($0 * 8)) }
      }
    }
    bench.memory.bytes.replaceSubrange(0x1000..<0x1000 + table.count, with: table)
    busMasterWrite(4, 0x1000, width: 4)
    busMasterWrite(2, 0x06)
  }

  func start(toMemory: Bool) { busMasterWrite(0, toMemory ? 0x09 : 0x01) }
  func stop() { busMasterWrite(0, 0) }
}
