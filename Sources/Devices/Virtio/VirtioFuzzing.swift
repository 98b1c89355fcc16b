import DeviceModel

/// Drives a virtio disk with an arbitrary byte string, as a guest with bad intentions
/// would: rings, transport and requests. Shared by the fuzz target and the tests.
package enum VirtioFuzzing {
  /// Interprets `program` as register accesses, memory contents, whole descriptors and
  /// the pace of the image, and saves and restores the card on the way.
  ///
  /// - Returns: whether the disk answers a read as it should after a reset, whatever it
  ///   was brought to.
  @discardableResult
  package static func run(_ program: [UInt8]) -> Bool {
    let bench = Bench()
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    func word() -> UInt64 { (0..<4).reduce(0) { value, _ in value << 8 | UInt64(next()) } }
    while let operation = rest.popFirst() {
      let width = 1 << Int(operation >> 4 & 3)
      switch operation & 15 {
      case 0:
        bench.card.write(offset: UInt64(next() & 63), width: min(width, 4), value: word())
      case 1: bench.card.write(offset: word() & 0x7FFF, width: min(width, 4), value: word())
      case 2: _ = bench.card.read(offset: word() & 0x7FFF, width: min(width, 4))
      case 3: bench.configure(at: Int(next()), width: min(width, 4), UInt32(word()))
      case 4: bench.access(at: Int(next()), width: min(width, 4))
      case 5: bench.start(packed: operation & 0x10 != 0, features: UInt64(next()))
      case 6: bench.describe(next(), page: next(), count: next(), flags: next(), link: next())
      case 7: bench.expose(head: next(), slot: next(), index: next())
      case 8: bench.put([next(), next(), next(), next()], at: Int(word() & 0xFFFC))
      case 9: bench.request(type: next(), sector: next())
      case 10: bench.card.ring(Int(next() & 3))
      case 11: bench.complete(Int(next()))
      case 12: bench.restore()
      case 13: bench.image.fails.toggle()
      case 14: bench.card.reset()
      default: bench.card.write(offset: 0x3000, width: 2, value: 0)
      }
    }
    return bench.recovers()
  }

  final class Messages: MessageInterrupts {
    func route(vector: Int, address: UInt64, data: UInt32) {}
    func signal(vector: Int) {}
  }

  private final class Bench {
    private enum Place {
      static let descriptors = 0x1000
      static let driver = 0x2000
      static let device = 0x3000
      static let header = 0x4000
    }

    private static let entries = 8

    let memory = StorageFuzzing.Memory()
    let image = StorageFuzzing.Image(byteCount: 512 * 64)
    private var device: VirtioBlock
    private(set) var card: VirtioPCI
    private var again: [Int] = []

    init() {
      device = VirtioBlock(backend: image, serial: "F", queues: 2, state: nil)
      card = VirtioPCI(
        device, memory: memory, messages: Messages(), log: { _ in }, state: nil)
      connect()
      card.function.setRegister(PCIRegister.command, width: 2, value: 6)
    }

    private func connect() {
      card.onNotifyAgain = { [unowned self] in again.append($0) }
    }

    func restore() {
      let (state, deviceState) = (card.saveState(), device.saveState())
      // What the old device still waits for is never completed.
      image.forget()
      again = []
      device = VirtioBlock(backend: image, serial: "F", queues: 2, state: deviceState)
      card = VirtioPCI(
        device, memory: memory, messages: Messages(), log: { _ in }, state: state)
      connect()
      card.resume()
    }

    func complete(_ count: Int) {
      for _ in 0..<count {
        if !again.isEmpty { card.ring(again.removeFirst()) }
        image.completeOne()
      }
    }

    func configure(at offset: Int, width: Int, _ value: UInt32) {
      card.function.writeConfiguration(offset, width: width, value: value)
    }

    func access(at offset: Int, width: Int) {
      _ = card.function.readConfiguration(offset, width: width)
    }

    func put(_ bytes: [UInt8], at offset: Int) {
      memory.bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }

    /// A driver that does as it should up to DRIVER_OK, whatever features it wants.
    func start(packed: Bool, features: UInt64) {
      card.write(offset: 0x14, width: 1, value: 0)
      card.write(offset: 0x14, width: 1, value: 3)
      let high = packed ? 5 : 1 as UInt64
      for (half, value) in [(0, (features & 3) << 28 | (features >> 2) << 9), (1, high)] {
        card.write(offset: 0x08, width: 4, value: UInt64(half))
        card.write(offset: 0x0C, width: 4, value: value & card.offeredFeatures >> (half * 32))
      }
      card.write(offset: 0x14, width: 1, value: 0x0B)
      card.write(offset: 0x16, width: 2, value: 0)
      card.write(offset: 0x18, width: 2, value: UInt64(Self.entries))
      for (register, place) in [
        (0x20, Place.descriptors), (0x28, Place.driver), (0x30, Place.device),
      ] as [(UInt64, Int)] {
        card.write(offset: register, width: 4, value: UInt64(place))
        card.write(offset: register + 4, width: 4, value: 0)
      }
      card.write(offset: 0x1C, width: 2, value: 1)
      card.write(offset: 0x14, width: 1, value: 0x0F)
    }

    /// A descriptor, of which page 0xFF lies outside RAM. Bits 3 and up of `flags` are a
    /// packed one's availability, or the high bits of its length.
    func describe(_ index: UInt8, page: UInt8, count: UInt8, flags: UInt8, link: UInt8) {
      let address = page == 0xFF ? UInt64.max - 64 : UInt64(page) << 8
      let low = UInt16(flags & 7) | UInt16(flags & 8) << 4 | UInt16(flags & 16) << 11
      let length = UInt32(count) << UInt32(flags >> 5)
      let (first, second) = flags & 0x18 == 0 ? (low, UInt16(link)) : (UInt16(link), low)
      put(
        LittleEndian.bytes(address) + LittleEndian.bytes(length) + LittleEndian.bytes(first)
          + LittleEndian.bytes(second), at: Place.descriptors + Int(index & 15) * 16)
    }

    func expose(head: UInt8, slot: UInt8, index: UInt8) {
      put(LittleEndian.bytes(UInt16(head)), at: Place.driver + 4 + Int(slot & 7) * 2)
      put(LittleEndian.bytes(UInt16(index)), at: Place.driver + 2)
      card.ring(0)
    }

    func request(type: UInt8, sector: UInt8) {
      put(
        LittleEndian.bytes(UInt64(type)) + LittleEndian.bytes(UInt64(sector)), at: Place.header)
    }

    func recovers() -> Bool {
      card.reset()
      image.forget()
      image.fails = false
      again = []
      card.function.setRegister(PCIRegister.command, width: 2, value: 6)
      put(Array(repeating: 0, count: 0x3000), at: Place.descriptors)
      start(packed: false, features: 0)
      request(type: 0, sector: 1)
      // Header, a sector of data, status.
      describe(0, page: 0x40, count: 16, flags: 1, link: 1)
      describe(1, page: 0x50, count: 128, flags: 3 | 2 << 5, link: 2)
      describe(2, page: 0x60, count: 1, flags: 2, link: 0)
      memory.bytes[0x6000] = 0xEE
      expose(head: 0, slot: 0, index: 1)
      complete(1000)
      return memory.bytes[0x6000] == 0 && memory.bytes[0x3002] == 1 && card.failure == nil
    }
  }
}
