import DeviceModel
import Devices
import Testing

/// Both ring formats, with an entropy device behind them, which fills what it is given.
@Suite struct VirtqueueTests {
  private static let version1: UInt64 = 1 << 32
  private static let packedRing: UInt64 = 1 << 34
  private static let indirect: UInt64 = 1 << 28
  private static let eventIndex: UInt64 = 1 << 29

  private struct Setting {
    let source = PatternSource()
    let device: VirtioEntropy
    let bench: VirtioBench
    let queue: DriverQueue

    init(packed: Bool, features: UInt64 = 0, size: Int = 8) {
      device = VirtioEntropy(source: source, state: nil)
      bench = VirtioBench(device)
      bench.negotiate(version1 | (packed ? packedRing : 0) | features)
      queue = DriverQueue(bench, size: size, packed: packed)
      bench.enableMessages(vectors: 2)
      bench.set(VirtioBench.queueVector, 2, 1)
      bench.set(VirtioBench.configurationVector, 2, 0)
      bench.status = 0x0F
    }
  }

  @Test(
    "buffers come back filled, in both formats, many times around the ring",
    arguments: [
      false, true,
    ])
  func manyRounds(packed: Bool) {
    let setting = Setting(packed: packed)
    for round in 0..<50 {
      let pieces: [DriverQueue.Piece] = [.writable(0x3_0000, 5), .writable(0x3_1000, 3 + round)]
      let identifier = setting.queue.add(pieces)
      setting.queue.kick()
      let used = setting.queue.takeUsed()
      #expect(used?.identifier == identifier && used?.written == UInt32(8 + round))
    }
    #expect(Array(setting.bench.memory.bytes[0x3_0000..<0x3_0005]) == [1, 8, 15, 22, 29])
    #expect(setting.bench.memory.bytes[0x3_0005] == 0 && setting.bench.memory.bytes[0x3_1000] == 36)
    #expect(setting.bench.messages.sent == Array(repeating: 1, count: 50))
    #expect(!setting.bench.needsReset)
  }

  @Test("a ring of three entries works where it may, when packed")
  func oddSize() {
    let setting = Setting(packed: true, size: 3)
    for _ in 0..<10 {
      setting.queue.add([.writable(0x3_0000, 4), .writable(0x3_1000, 4)])
      setting.queue.kick()
      #expect(setting.queue.takeUsed()?.written == 8)
    }
    #expect(Setting(packed: false, size: 3).bench.needsReset)
  }

  @Test("indirect tables are followed", arguments: [false, true])
  func indirectTables(packed: Bool) {
    let setting = Setting(packed: packed, features: Self.indirect)
    for _ in 0..<20 {
      setting.queue.add((0..<10).map { .writable(0x3_0000 + $0 * 16, 2) }, indirect: true)
      setting.queue.kick()
      #expect(setting.queue.takeUsed()?.written == 20)
    }
    #expect(!setting.bench.needsReset)
  }

  @Test("a driver that polls is not interrupted", arguments: [false, true])
  func suppression(packed: Bool) {
    let setting = Setting(packed: packed)
    // VIRTQ_AVAIL_F_NO_INTERRUPT, or RING_EVENT_FLAGS_DISABLE.
    setting.queue.put(UInt16(1), at: setting.queue.driver + (packed ? 2 : 0))
    setting.queue.add([.writable(0x3_0000, 5)])
    setting.queue.kick()
    #expect(setting.queue.takeUsed() != nil)
    #expect(setting.bench.messages.sent == [])
  }

  @Test(
    "with the event index the driver hears of the buffer it waits for", arguments: [false, true])
  func eventIndex(packed: Bool) {
    let setting = Setting(packed: packed, features: Self.eventIndex)
    // Of the third buffer: the one after two were used.
    if packed {
      setting.queue.put(UInt32(0x0002_8002), at: setting.queue.driver)
    } else {
      setting.queue.put(UInt16(2), at: setting.queue.driver + 4 + 16)
    }
    for count in 1...5 {
      setting.queue.add([.writable(0x3_0000, 5)])
      setting.queue.kick()
      #expect(setting.bench.messages.sent.count == (count >= 3 ? 1 : 0), "after \(count)")
    }
    // The device, too, says which buffer it waits for; in a packed ring by its place and
    // the round's wrap counter.
    if packed {
      #expect(setting.queue.get(setting.queue.device, UInt32.self) == 0x0002_8005)
      for _ in 6...9 { setting.queue.add([.writable(0x3_0000, 5)]) }
      setting.queue.kick()
      #expect(setting.queue.get(setting.queue.device, UInt32.self) == 0x0002_0001)
    } else {
      #expect(setting.queue.get(setting.queue.device + 4 + 64, UInt16.self) == 5)
    }
  }

  @Test("without the event index a packed ring's device is told of every buffer")
  func noEventIndex() {
    let setting = Setting(packed: true)
    setting.queue.add([.writable(0x3_0000, 5)])
    setting.queue.kick()
    #expect(setting.queue.takeUsed() != nil)
    #expect(setting.queue.get(setting.queue.device, UInt32.self) == 0)
  }

  // MARK: Malformed chains

  /// Has the device look at what `make` left in memory; expects it to be broken, with
  /// one line and a configuration interrupt, and to work again after a reset.
  private func expectBroken(
    packed: Bool, _ words: String, features: UInt64 = VirtqueueTests.indirect,
    _ make: (DriverQueue) -> Void
  ) {
    let setting = Setting(packed: packed, features: features)
    make(setting.queue)
    setting.queue.kick()
    #expect(setting.bench.needsReset)
    #expect(setting.bench.log.count == 1 && setting.bench.log.first?.contains(words) == true)
    #expect(setting.bench.messages.sent == [0], "the configuration's vector")
    setting.queue.kick()
    #expect(setting.bench.log.count == 1 && setting.bench.messages.sent == [0], "no more is said")
    setting.bench.memory.bytes = Array(repeating: 0, count: VirtioBench.memorySize)
    setting.bench.negotiate(Self.version1)
    let queue = DriverQueue(setting.bench, packed: false)
    setting.bench.status = 0x0F
    queue.add([.writable(0x3_0000, 5)])
    queue.kick()
    #expect(queue.takeUsed()?.written == 5 && !setting.bench.needsReset)
  }

  @Test("a chain that loops ends")
  func loop() {
    expectBroken(packed: false, "longer than its table of 8") { queue in
      queue.describe(0, 0x3_0000, 1, flags: 3, link: 1)
      queue.describe(1, 0x3_0000, 1, flags: 3, link: 0)
      queue.expose(0)
    }
    expectBroken(packed: true, "longer than its ring of 8") { queue in
      for index in 0..<8 { queue.describe(index, 0x3_0000, 1, flags: queue.availableFlags | 3) }
    }
  }

  @Test("a head, or a link, beyond the table breaks the device")
  func index() {
    expectBroken(packed: false, "descriptor 8 is beyond") { $0.expose(8) }
    expectBroken(packed: false, "descriptor 65535 is beyond") { queue in
      queue.describe(0, 0x3_0000, 1, flags: 3, link: 0xFFFF)
      queue.expose(0)
    }
    expectBroken(packed: false, "9 buffers are available") { $0.expose(0, count: 9) }
  }

  @Test("memory that is not RAM breaks the device", arguments: [false, true])
  func address(packed: Bool) {
    for (address, count) in [
      (UInt64(VirtioBench.memorySize), UInt32(1)), (UInt64(VirtioBench.memorySize) - 4, 5),
      (.max, 1), (.max - 3, 16), (0x3_0000, .max),
    ] {
      expectBroken(packed: packed, "not RAM") { queue in
        queue.add([.init(address: address, count: count, isWritable: true)])
      }
    }
  }

  @Test("a readable descriptor after a writable one breaks the device", arguments: [false, true])
  func order(packed: Bool) {
    expectBroken(packed: packed, "readable descriptor after a writable") { queue in
      queue.add([.writable(0x3_0000, 1), .readable(0x3_0000, 1)])
    }
  }

  private func exposeTable(_ queue: DriverQueue, _ count: UInt32, flags: UInt16 = 4) {
    queue.describe(
      0, queue.tables, count, flags: flags | (queue.isPacked ? queue.availableFlags : 0), link: 1)
    if !queue.isPacked { queue.expose(0) }
  }

  @Test("indirect tables within tables break the device", arguments: [false, true])
  func nested(packed: Bool) {
    expectBroken(packed: packed, "table is in another") { queue in
      queue.describe(0, queue.tables, 16, flags: 4, table: queue.tables)
      exposeTable(queue, 16)
    }
  }

  @Test("an indirect descriptor that goes on breaks the device", arguments: [false, true])
  func indirectWithNext(packed: Bool) {
    expectBroken(packed: packed, "not the last of its chain") { exposeTable($0, 16, flags: 5) }
  }

  @Test(
    "an indirect table of no, odd or too many bytes breaks the device", arguments: [false, true])
  func tableSize(packed: Bool) {
    for count: UInt32 in [0, 8, 17, 1025 * 16, 0xFFFF_FFF0] {
      expectBroken(packed: packed, "indirect table has") { exposeTable($0, count) }
    }
  }

  @Test("an indirect table outside RAM breaks the device", arguments: [false, true])
  func tableAddress(packed: Bool) {
    expectBroken(packed: packed, "not in RAM") { queue in
      queue.describe(
        0, .max - 15, 16, flags: 4 | (packed ? queue.availableFlags : 0))
      if !packed { queue.expose(0) }
    }
  }

  @Test("an indirect table that loops ends")
  func tableLoop() {
    expectBroken(packed: false, "longer than its table of 2") { queue in
      queue.describe(0, 0x3_0000, 1, flags: 3, link: 1, table: queue.tables)
      queue.describe(1, 0x3_0000, 1, flags: 3, link: 0, table: queue.tables)
      exposeTable(queue, 32)
    }
  }

  @Test(
    "an indirect descriptor that was not agreed upon breaks the device",
    arguments: [
      false, true,
    ])
  func notAgreed(packed: Bool) {
    expectBroken(packed: packed, "not agreed upon", features: 0) { exposeTable($0, 16) }
  }

  @Test("rings outside RAM, or not aligned, are refused", arguments: [false, true])
  func rings(packed: Bool) {
    for (descriptors, driver, device) in [
      (0x10_0000, 0x2000, 0x3000), (0x1008, 0x2000, 0x3000), (0x1000, 0xF_FFFF, 0x3000),
      (0x1000, 0x2000, 0x3002), (0x1000, 0x2000, 0xFFFF_FFFF_FFFC),
    ] as [(UInt64, UInt64, UInt64)] {
      let bench = VirtioBench(VirtioEntropy(source: PatternSource(), state: nil))
      bench.negotiate(Self.version1 | (packed ? Self.packedRing : 0))
      bench.enable(0, size: 8, descriptors: descriptors, driver: driver, device: device)
      #expect(bench.needsReset && bench.transport.read(offset: 0x1C, width: 2) & 0xFFFF == 0)
    }
  }

  @Test("a buffer is no longer than the device fills at once", arguments: [false, true])
  func largeBuffer(packed: Bool) {
    let setting = Setting(packed: packed)
    setting.queue.add([.writable(0x3_0000, 0x2_0000)])
    setting.queue.kick()
    #expect(setting.queue.takeUsed()?.written == 4096)
    #expect(setting.source.asked == [4096])
  }

  @Test("a queue goes on in a restored device where it was", arguments: [false, true])
  func restored(packed: Bool) throws {
    let setting = Setting(packed: packed)
    for _ in 0..<5 {
      setting.queue.add([.writable(0x3_0000, 4), .writable(0x3_1000, 4)])
      setting.queue.kick()
      #expect(setting.queue.takeUsed()?.written == 8)
    }
    setting.queue.add([.writable(0x3_0000, 6)])
    // Not yet told of, when the machine is saved.
    let device = VirtioEntropy(source: PatternSource(), state: setting.device.saveState())
    let second = VirtioBench(
      device, memory: setting.bench.memory, state: setting.bench.transport.saveState())
    second.transport.resume()
    #expect(setting.queue.takeUsed()?.written == 6)
    #expect(second.messages.routes[1]?.data == 0x41)
    #expect(second.messages.sent.contains(1))
  }
}
