import DeviceModel
import Devices
import Testing

@Suite struct VirtioBlockTests {
  private static let version1: UInt64 = 1 << 32
  private static let packedRing: UInt64 = 1 << 34
  private static let flush: UInt64 = 1 << 9
  private static let discard: UInt64 = 1 << 13
  private static let writeZeroes: UInt64 = 1 << 14
  private static let header: UInt64 = 0x3_0000
  private static let data: UInt64 = 0x4_0000
  private static let statusByte: UInt64 = 0x3_1000

  private struct Setting {
    let image: FakeImage
    let device: VirtioBlock
    let bench: VirtioBench
    let queue: DriverQueue

    init(
      packed: Bool = false, features: UInt64 = flush | discard | writeZeroes, sectors: Int = 64,
      readOnly: Bool = false
    ) {
      image = FakeImage(sectors: sectors)
      image.isReadOnly = readOnly
      device = VirtioBlock(backend: image, serial: "SN-17", state: nil)
      bench = VirtioBench(device)
      bench.negotiate(version1 | (packed ? packedRing : 0) | features)
      queue = DriverQueue(bench, packed: packed)
      bench.status = 0x0F
    }

    func ask(_ type: UInt32, sector: UInt64 = 0, _ data: [DriverQueue.Piece] = []) {
      queue.put(type, at: header)
      queue.put(sector, at: header + 8)
      bench.memory.bytes[Int(statusByte)] = 0xEE
      queue.add([.readable(header, 16)] + data + [.writable(statusByte, 1)])
      queue.kick()
    }

    /// Asks, lets the image work, and returns the status and the number of bytes.
    func request(
      _ type: UInt32, sector: UInt64 = 0, _ data: [DriverQueue.Piece] = []
    ) -> (status: UInt8, written: UInt32?) {
      ask(type, sector: sector, data)
      image.complete()
      bench.settle()
      let written = queue.takeUsed()?.written
      return (bench.memory.bytes[Int(statusByte)], written)
    }

    func memory(_ address: UInt64, _ count: Int) -> [UInt8] {
      Array(bench.memory.bytes[Int(address)..<Int(address) + count])
    }
  }

  @Test("sectors are read into the pieces that the driver named", arguments: [false, true])
  func read(packed: Bool) {
    let setting = Setting(packed: packed)
    let answer = setting.request(
      0, sector: 3, [.writable(Self.data, 700), .writable(Self.data + 0x1000, 324)])
    #expect(answer.status == 0 && answer.written == 1025)
    let expected = FakeImage.sectors(3, 2)
    #expect(setting.memory(Self.data, 700) == Array(expected.prefix(700)))
    #expect(setting.memory(Self.data + 0x1000, 324) == Array(expected.dropFirst(700)))
  }

  @Test("a reset takes back reads and writes whose turn has not come")
  func resetTakesBack() {
    let setting = Setting()
    let (image, memory) = (setting.image.bytes, setting.memory(Self.data, 512))
    setting.ask(0, sector: 3, [.writable(Self.data, 512)])
    setting.ask(1, sector: 5, [.readable(Self.data, 512)])
    let before = setting.image.timesForgotten
    setting.bench.status = 0
    #expect(setting.image.timesForgotten == before + 1)
    setting.image.complete()
    #expect(setting.memory(Self.data, 512) == memory)
    #expect(setting.image.bytes == image)
  }

  @Test("sectors are written", arguments: [false, true])
  func write(packed: Bool) {
    let setting = Setting(packed: packed)
    let bytes = FakeImage.sectors(40, 2)
    setting.bench.memory.bytes.replaceSubrange(0x4_0000..<0x4_0400, with: bytes)
    let answer = setting.request(1, sector: 5, [.readable(Self.data, 1024)])
    #expect(answer.status == 0 && answer.written == 1)
    #expect(Array(setting.image.bytes[5 * 512..<7 * 512]) == bytes)
    #expect(setting.image.flushes == 0)
  }

  @Test("a driver that cannot flush has each write made durable")
  func writeThrough() {
    let setting = Setting(features: 0)
    #expect(setting.request(1, sector: 5, [.readable(Self.data, 512)]).status == 0)
    #expect(setting.image.flushes == 1)
  }

  @Test("flush reaches the image")
  func flushes() {
    let setting = Setting()
    #expect(setting.request(4).status == 0 && setting.image.flushes == 1)
  }

  @Test("a request of more than a part is carried out in parts")
  func parts() {
    let setting = Setting(sectors: 5000)
    // All of it lands in the same 64 KiB, one after another.
    let pieces = (0..<5).map { _ in DriverQueue.Piece.writable(0x8_0000, 0x7_0000) }
    let answer = setting.request(0, pieces)
    #expect(answer.status == 0 && answer.written == 5 * 0x7_0000 + 1)
    let last = FakeImage.sectors(4 * 0x7_0000 / 512, 0x7_0000 / 512)
    // Not compared within the macro, which would search for the shortest edit.
    let isLast = setting.memory(0x8_0000, 0x7_0000) == last
    #expect(isLast)
  }

  @Test("beyond the end, odd sizes and failures are I/O errors")
  func errors() {
    let setting = Setting()
    #expect(setting.request(0, sector: 64, [.writable(Self.data, 512)]).status == 1)
    #expect(setting.request(0, sector: 63, [.writable(Self.data, 1024)]).status == 1)
    #expect(setting.request(0, sector: .max, [.writable(Self.data, 512)]).status == 1)
    #expect(setting.request(0, sector: 1 << 55, [.writable(Self.data, 512)]).status == 1)
    #expect(setting.request(0, [.writable(Self.data, 511)]).status == 1)
    setting.image.failure = BlockError(kind: .medium, context: "asked to fail")
    #expect(setting.request(0, [.writable(Self.data, 512)]).status == 1)
    #expect(setting.request(1, [.readable(Self.data, 512)]).status == 1)
    #expect(setting.request(4).status == 1)
    #expect(!setting.bench.needsReset)
  }

  @Test("unknown requests are unsupported")
  func unknown() {
    let setting = Setting(features: 0)
    #expect(setting.request(99).status == 2)
    #expect(setting.request(11, [.readable(Self.data, 16)]).status == 2, "discard, not agreed")
  }

  @Test("a request without a header or a status breaks the device")
  func malformed() {
    for pieces: [DriverQueue.Piece] in [
      [.readable(Self.header, 15), .writable(Self.statusByte, 1)], [.readable(Self.header, 16)],
      [.writable(Self.statusByte, 1)],
    ] {
      let setting = Setting()
      setting.queue.add(pieces)
      setting.queue.kick()
      #expect(setting.bench.needsReset && setting.bench.log.count == 1)
    }
  }

  @Test("the serial number is answered, padded to 20 bytes")
  func serial() {
    let setting = Setting()
    #expect(setting.request(8, [.writable(Self.data, 20)]).status == 0)
    #expect(
      setting.memory(Self.data, 20) == Array("SN-17".utf8) + Array(repeating: 0, count: 15))
  }

  private func describe(
    _ setting: Setting, _ index: UInt64, sector: UInt64, count: UInt32, flags: UInt32 = 0
  ) {
    let place = Self.data + index * 16
    setting.queue.put(sector, at: place)
    setting.queue.put(count, at: place + 8)
    setting.queue.put(flags, at: place + 12)
  }

  @Test("ranges are discarded and zeroed")
  func ranges() {
    let setting = Setting()
    describe(setting, 0, sector: 8, count: 2)
    describe(setting, 1, sector: 16, count: 1)
    #expect(setting.request(11, [.readable(Self.data, 32)]).status == 0)
    describe(setting, 0, sector: 20, count: 2, flags: 1)
    describe(setting, 1, sector: 30, count: 1)
    #expect(setting.request(13, [.readable(Self.data, 32)]).status == 0)
    #expect(
      setting.image.cleared == [
        "discard 4096 1024", "discard 8192 512", "zero 10240 1024 true", "zero 15360 512 false",
      ])
    #expect(setting.image.bytes[10240..<11264].allSatisfy { $0 == 0 })
  }

  @Test("ranges beyond the end, of no sense or too many are refused")
  func badRanges() {
    let setting = Setting()
    describe(setting, 0, sector: 63, count: 2)
    #expect(setting.request(11, [.readable(Self.data, 16)]).status == 1)
    describe(setting, 0, sector: .max, count: 2)
    #expect(setting.request(13, [.readable(Self.data, 16)]).status == 1)
    describe(setting, 0, sector: 0, count: 1, flags: 1)
    #expect(setting.request(11, [.readable(Self.data, 16)]).status == 2, "unmap is for zeroing")
    #expect(setting.request(11, [.readable(Self.data, 15)]).status == 1)
    #expect(setting.request(11, [.readable(Self.data, 17 * 16)]).status == 1)
    #expect(setting.request(11).status == 1)
    #expect(setting.image.cleared == [])
  }

  @Test("a read-only image says so, and refuses")
  func readOnly() {
    let setting = Setting(features: 0, readOnly: true)
    #expect(setting.bench.offered & 0x6020 == 0x20)
    setting.image.failure = BlockError(kind: .readOnly, context: "read-only")
    #expect(setting.request(1, [.readable(Self.data, 512)]).status == 1)
  }

  @Test("configuration space describes the disk")
  func configuration() {
    let device = VirtioBlock(
      backend: FakeImage(sectors: 77), serial: "S", queues: 4, state: nil)
    let bench = VirtioBench(device)
    let read = { bench.transport.read(offset: 0x2000 + $0, width: $1) }
    #expect(read(0, 4) == 77 && read(12, 4) == 254 && read(20, 4) == 512 && read(24, 1) == 3)
    #expect(read(34, 2) == 4 && read(36, 4) == 1 << 21 && read(40, 4) == 16 && read(56, 1) == 1)
    #expect(read(60, 4) == 0 && read(0xFFC, 4) == 0)
    #expect(bench.offered & 1 << 12 != 0)
    #expect(bench.transport.read(offset: 0x12, width: 2) & 0xFFFF == 4)
  }

  @Test("requests under way are made again by a restored device", arguments: [false, true])
  func restored(packed: Bool) {
    let setting = Setting(packed: packed)
    setting.ask(0, sector: 3, [.writable(Self.data, 512)])
    #expect(setting.image.pendingCount == 1)
    let image = FakeImage(sectors: 64)
    let device = VirtioBlock(backend: image, serial: "S", state: setting.device.saveState())
    let second = VirtioBench(
      device, memory: setting.bench.memory, state: setting.bench.transport.saveState())
    second.transport.resume()
    #expect(image.pendingCount == 1)
    image.complete()
    #expect(setting.queue.takeUsed()?.written == 513)
    #expect(setting.memory(Self.data, 512) == FakeImage.pattern(3))
    #expect(setting.memory(Self.statusByte, 1) == [0])
  }

  @Test("a reset forgets what is under way")
  func reset() {
    let setting = Setting()
    setting.ask(0, sector: 3, [.writable(Self.data, 512)])
    setting.bench.status = 0
    setting.image.complete()
    #expect(setting.memory(Self.data, 4) == [0, 0, 0, 0])
    #expect(setting.queue.takeUsed() == nil)
  }
}
