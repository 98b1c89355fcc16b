import DeviceModel
import Devices
import Testing

@Suite struct VirtioBalloonTests {
  /// A balloon whose driver agreed to `features`, with every queue that it has then.
  private final class Setting {
    static let statistics: UInt64 = 1 << 1
    static let hinting: UInt64 = 1 << 3
    static let poison: UInt64 = 1 << 4
    static let reporting: UInt64 = 1 << 5

    let clock = FakeClock()
    let device: VirtioBalloon
    let bench: VirtioBench
    var queues: [DriverQueue] = []
    var changes = 0

    init(_ features: UInt64) {
      device = VirtioBalloon(clock: clock, state: nil)
      bench = VirtioBench(device)
      bench.negotiate(1 << 32 | features)
      let optional = [Self.statistics, Self.hinting, Self.reporting].filter { features & $0 != 0 }
      queues = (0..<2 + optional.count).map {
        DriverQueue(bench, $0, packed: false, base: 0x1_0000 + UInt64($0) * 0x8000)
      }
      bench.status = 0x0F
      device.onChange = { [unowned self] in changes += 1 }
    }

    func word(_ index: UInt64) -> UInt64 {
      bench.transport.read(offset: 0x2000 + index * 4, width: 4)
    }

    /// Fills pages from 0x80000 on with ones.
    func fill(_ pages: Int) {
      for index in 0x8_0000..<0x8_0000 + pages * 4096 { bench.memory.bytes[index] = 1 }
    }

    /// Which of the pages from 0x80000 on were given back.
    func released(_ pages: Int) -> [Int] {
      (0..<pages).filter { page in
        bench.memory.bytes[0x8_0000 + page * 4096..<0x8_0000 + (page + 1) * 4096].allSatisfy {
          $0 == 0
        }
      }
    }
  }

  @Test("what is asked for is in configuration space, and what was given up is told")
  func target() {
    let setting = Setting(0)
    setting.bench.enableMessages(vectors: 6)
    setting.bench.set(VirtioBench.configurationVector, 2, 0)
    setting.device.setTarget(0x12345 * 4096 + 17)
    #expect(setting.word(0) == 0x12345)
    #expect(setting.bench.messages.sent == [0])
    setting.device.setTarget(0x12345 * 4096)
    #expect(setting.bench.messages.sent == [0], "nothing changed")
    setting.bench.set(0x2004, 4, 0x300)
    #expect(setting.device.actual == 0x300 * 4096 && setting.word(1) == 0x300)
    #expect(setting.changes > 0)
    setting.bench.set(0x2000, 4, 7)
    #expect(setting.word(0) == 0x12345, "drivers cannot set that")
    setting.bench.status = 0
    #expect(setting.device.actual == 0 && setting.device.target == 0x12345 * 4096)
  }

  @Test("pages of the list are given back, and no others; what is not RAM is passed over")
  func inflating() {
    let setting = Setting(0)
    setting.fill(8)
    let list: [UInt32] = [0x85, 0x81, 0x83, 0x82, 0xFFFF_FFFF, 0x81, 0x100]
    for (index, page) in list.enumerated() {
      setting.queues[0].put(page, at: 0x6_0000 + UInt64(index) * 4)
    }
    setting.queues[0].add([.readable(0x6_0000, list.count * 4)])
    setting.queues[0].kick()
    #expect(setting.queues[0].takeUsed() != nil)
    #expect(setting.released(8) == [1, 2, 3, 5])
    setting.queues[1].add([.readable(0x6_0000, 4)])
    setting.queues[1].kick()
    #expect(setting.queues[1].takeUsed() != nil && !setting.bench.needsReset)
    setting.queues[0].add([.readable(0x6_0000, 7)])
    setting.queues[0].kick()
    #expect(setting.bench.needsReset)
  }

  @Test("reported pages are given back, unless the guest counts on their contents")
  func reporting() {
    // Without statistics and hints it is the third queue.
    let plain = Setting(Setting.reporting)
    plain.fill(8)
    plain.queues[2].add([.writable(0x8_0800, 0x1800), .writable(0x8_4000, 0x2000)])
    plain.queues[2].kick()
    #expect(plain.queues[2].takeUsed() != nil)
    #expect(plain.released(8) == [1, 4, 5])
    let poisoned = Setting(Setting.reporting | Setting.poison)
    poisoned.bench.set(0x200C, 4, 0xAAAA_AAAA)
    #expect(poisoned.word(3) == 0xAAAA_AAAA)
    poisoned.fill(2)
    poisoned.queues[2].add([.writable(0x8_0000, 0x1000)])
    poisoned.queues[2].kick()
    #expect(poisoned.queues[2].takeUsed() != nil && poisoned.released(2) == [])
  }

  private func put(_ statistics: [(UInt16, UInt64)], _ queue: DriverQueue) {
    for (index, (tag, value)) in statistics.enumerated() {
      queue.put(tag, at: 0x6_0000 + UInt64(index) * 10)
      queue.put(value, at: 0x6_0002 + UInt64(index) * 10)
    }
    queue.add([.readable(0x6_0000, statistics.count * 10)])
    queue.kick()
  }

  @Test("statistics are taken when they come, and asked for by giving their buffer back")
  func statistics() {
    let setting = Setting(Setting.statistics)
    let queue = setting.queues[2]
    setting.device.askForStatistics()
    put([(4, 1000), (5, 1 << 40), (99, 1), (0, .max)], queue)
    #expect(queue.takeUsed() == nil)
    #expect(
      setting.device.statistics.values == ["stat-free-memory": 1000, "stat-total-memory": 1 << 40])
    #expect(setting.device.statistics.time == setting.clock.wallClock.seconds)
    setting.device.askForStatistics()
    #expect(queue.takeUsed()?.written == 0)
    setting.device.askForStatistics()
    #expect(queue.takeUsed() == nil, "the driver has its buffer")
    put([(4, 2000)], queue)
    #expect(setting.device.statistics.values == ["stat-free-memory": 2000])
  }

  @Test("a buffer that is kept is given back by the restored machine")
  func restored() {
    let setting = Setting(Setting.statistics)
    put([(4, 1000)], setting.queues[2])
    let device = VirtioBalloon(clock: setting.clock, state: setting.device.saveState())
    let bench = VirtioBench(
      device, memory: setting.bench.memory, state: setting.bench.transport.saveState())
    bench.transport.resume()
    device.askForStatistics()
    #expect(setting.queues[2].takeUsed() != nil)
    #expect(device.statistics.values == ["stat-free-memory": 1000])
  }

  @Test("hints are collected while their command lasts")
  func hints() {
    #expect(!Setting(0).device.askForHints())
    let setting = Setting(Setting.hinting)
    let queue = setting.queues[2]
    func tell(_ command: UInt64) {
      queue.put(UInt32(command), at: 0x6_0000)
      queue.add([.readable(0x6_0000, 4)])
      queue.kick()
    }
    func hint(_ address: UInt64, _ count: Int) {
      queue.add([.writable(address, count)])
      queue.kick()
    }
    hint(0x8_0000, 0x1000)
    #expect(setting.device.askForHints())
    let command = setting.word(2)
    #expect(command >= 2)
    hint(0x8_1000, 0x1000)
    tell(command)
    hint(0x8_2000, 0x1000)
    hint(0x8_3000, 0x2000)
    hint(0x9_0000, 0x1000)
    #expect(!setting.device.hinting.isComplete)
    tell(0)
    #expect(setting.device.hinting.isComplete)
    #expect(setting.device.hinting.ranges.map(\.address) == [0x8_2000, 0x9_0000])
    #expect(setting.device.hinting.ranges.map(\.count) == [0x3000, 0x1000])
    setting.device.releaseHints()
    #expect(setting.word(2) == 1 && setting.device.hinting.ranges.isEmpty)
    #expect(setting.device.askForHints() && setting.word(2) == command + 1)
  }
}
