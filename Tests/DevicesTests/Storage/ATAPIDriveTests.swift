import DeviceModel
import Devices
import Testing

@Suite struct ATAPIDriveTests {
  let bench = IDEBench()
  var ide: ChannelBench { bench.secondary }
  var drive: ATAPIDrive? { bench.controller.cdrom(at: 2) }

  /// CD sectors of 2048 bytes; the image has 1024 of them.
  func sectors(_ first: Int, _ count: Int) -> [UInt8] {
    FakeImage.sectors(first * 4, count * 4)
  }

  func big(_ value: Int, _ bytes: Int) -> [UInt8] {
    (0..<bytes).reversed().map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
  }

  func read10(_ first: Int, _ count: Int) -> [UInt8] {
    [0x28, 0] + big(first, 4) + [0] + big(count, 2)
  }

  @Test("after reset the drive shows the packet signature and a clear status")
  func signature() {
    #expect(ide.status == 0)
    #expect(
      [ide.error, ide.read(2), ide.read(3), ide.read(4), ide.read(5)] == [1, 1, 1, 0x14, 0xEB])
    ide.control(0x04)
    ide.control(0x00)
    #expect([ide.alternateStatus, ide.read(4), ide.read(5)] == [0, 0x14, 0xEB])
  }

  @Test("IDENTIFY DEVICE is aborted with the signature, IDENTIFY PACKET DEVICE answers")
  func identify() {
    ide.command(0xEC)
    #expect(ide.line.level && ide.status & 0x01 != 0 && ide.error == 0x04)
    #expect([ide.read(4), ide.read(5)] == [0x14, 0xEB])
    ide.command(0xA1)
    #expect(ide.line.level && ide.status == 0x58)
    let bytes = ide.readWords(512)
    #expect(bytes[1] == 0x85 && bytes[0] == 0xC0)
    let swapped = stride(from: 54, to: 80, by: 2).flatMap { [bytes[$0 + 1], bytes[$0]] }
    #expect(String(decoding: swapped, as: UTF8.self) == "CARREL DVD-ROM            ")
    #expect(ide.status == 0x50)
  }

  @Test("DEVICE RESET works even in the middle of a transfer")
  func deviceReset() {
    ide.packet(read10(0, 4), limit: 2048)
    _ = ide.readWords(100)
    ide.write(7, 0x08)
    #expect(ide.alternateStatus == 0)
    #expect([ide.read(4), ide.read(5)] == [0x14, 0xEB])
    #expect(ide.ask(read10(1, 1)) == sectors(1, 1))
  }

  @Test("INQUIRY says what the drive is, as much as was asked for")
  func inquiry() {
    let data = ide.ask([0x12, 0, 0, 0, 36])
    #expect(data.count == 36 && data[0] == 5 && data[1] == 0x80)
    #expect(String(decoding: data[8..<32], as: UTF8.self) == "CARREL  CARREL DVD-ROM  ")
    #expect(ide.ask([0x12, 0, 0, 0, 5]) == Array(data.prefix(5)))
    #expect(ide.ask([0x12, 0, 0, 0, 0]) == [])
    #expect(ide.ask([0x12, 1, 0x80, 0, 36]) == [])
    #expect(ide.sense == [5, 0x24, 0])
  }

  @Test("the size and every sector can be read, by READ(10) and READ(12)")
  func reads() {
    #expect(ide.ask([0x00]) == [])
    #expect(ide.status == 0x50)
    #expect(ide.ask([0x25]) == big(1023, 4) + big(2048, 4))
    #expect(ide.ask(read10(0, 1)) == sectors(0, 1))
    #expect(ide.ask(read10(1000, 24)) == sectors(1000, 24))
    #expect(ide.ask([0xA8, 0] + big(5, 4) + big(70, 4)) == sectors(5, 70))
    #expect(ide.ask(read10(7, 0)) == [])
    #expect(ide.status == 0x50 && ide.error == 0)
  }

  @Test("blocks are no larger than the host said", arguments: [2, 512, 2048, 4097, 30000, 0])
  func byteCountLimit(limit: Int) {
    ide.packet(read10(3, 10), limit: limit)
    let first = Int(ide.read(4)) | Int(ide.read(5)) << 8
    #expect(first == min(limit == 0 ? 0xFFFE : limit & ~1, 20480))
    #expect(ide.packetData() == sectors(3, 10))
    #expect(ide.status == 0x50 && ide.read(2) == 3)
  }

  @Test("each phase interrupts once: every block, and the status")
  func interrupts() {
    let before = ide.line.edges
    #expect(ide.ask(read10(0, 2), limit: 2048) == sectors(0, 2))
    #expect(ide.line.level)
    #expect(ide.line.edges - before == 3)
    #expect(ide.status == 0x50 && !ide.line.level)
  }

  @Test("sectors and replies can go by DMA")
  func dma() {
    ide.describe([(0x40000, 0), (0x50000, 0x5000)])
    ide.packet(read10(100, 42), dma: true)
    #expect(!ide.line.level)
    ide.start(toMemory: true)
    bench.complete()
    #expect(ide.busMasterStatus == 4 && ide.line.level && ide.status == 0x50)
    #expect(ide.read(2) == 3)
    #expect(Array(bench.memory.bytes[0x40000..<0x40000 + 42 * 2048]) == sectors(100, 42))
    ide.stop()
    ide.describe([(0x60000, 36)])
    ide.start(toMemory: true)
    ide.packet([0x12, 0, 0, 0, 36], dma: true)
    #expect(ide.busMasterStatus == 4 && bench.memory.bytes[0x60000] == 5)
  }

  @Test("a failure is told by status, error register and sense, once")
  func failure() {
    #expect(ide.ask(read10(1024, 1)) == [])
    #expect(ide.line.level && ide.status & 1 == 1 && ide.error == 0x54)
    #expect(ide.sense == [5, 0x21, 0])
    #expect(ide.sense == [0, 0, 0])
    #expect(ide.ask(read10(1023, 2)) == [])
    #expect(ide.sense == [5, 0x21, 0])
    #expect(ide.ask([0xA8, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]) == [])
    #expect(ide.sense == [5, 0x21, 0])
    #expect(ide.ask([0xEE]) == [])
    #expect(ide.sense == [5, 0x20, 0])
    bench.cd?.failure = BlockError(kind: .medium, context: "test")
    #expect(ide.ask(read10(0, 1)) == [])
    #expect(ide.error == 0x30 && ide.sense == [3, 0x11, 0])
  }

  @Test("without a medium commands that need one say so")
  func noMedium() {
    let bench = IDEBench(cd: nil)
    let ide = bench.secondary
    for packet: [UInt8] in [[0x00], [0x25], read10(0, 1), [0x43, 0, 0, 0, 0, 0, 0, 0, 12], [0x51]] {
      #expect(ide.ask(packet) == [])
      #expect(ide.status & 1 == 1)
      #expect(ide.sense == [2, 0x3A, 0])
    }
    #expect(ide.ask([0x12, 0, 0, 0, 36]).count == 36)
    #expect(ide.ask([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]) == [0, 6, 4, 0x10, 0, 0, 0, 0])
  }

  @Test("a new medium is announced to the next command and as an event")
  func mediumChange() {
    drive?.setMedium(nil)
    #expect(ide.ask([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]) == [0, 6, 4, 0x10, 3, 0, 0, 0])
    #expect(ide.ask([0x00]) == [])
    #expect(ide.sense == [2, 0x3A, 0])
    let other = FakeImage(sectors: 400)
    drive?.setMedium(other)
    #expect(ide.ask([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]) == [0, 6, 4, 0x10, 2, 2, 0, 0])
    #expect(ide.ask([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]) == [0, 6, 4, 0x10, 0, 2, 0, 0])
    #expect(ide.ask([0x00]) == [])
    #expect(ide.error == 0x60)
    #expect(ide.sense == [6, 0x28, 0])
    #expect(ide.ask([0x25]) == big(99, 4) + big(2048, 4))
  }

  @Test("taking the medium out ends a read that waits for it")
  func removedWhileReading() {
    ide.write(7, 0xA0)
    ide.writeWords(read10(0, 1) + [0, 0, 0])
    #expect(ide.alternateStatus == 0x80)
    drive?.setMedium(nil)
    #expect(ide.line.level && ide.status & 1 == 1)
    bench.complete()
    #expect(ide.sense == [2, 0x3A, 0])
  }

  @Test("a medium is ejected from outside, from a locked tray only by force")
  func eject() {
    final class Count { var value = 0 }
    let moves = Count()
    drive?.onTrayMove = { moves.value += 1 }
    _ = ide.ask([0x1E, 0, 0, 0, 1])
    #expect(drive?.eject() == false)
    #expect(ide.ask([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]) == [0, 6, 4, 0x10, 1, 2, 0, 0])
    #expect(drive?.isTrayOpen == false)
    #expect(ide.ask([0x25]).count == 8, "the medium is still there")
    #expect(drive?.eject(force: true) == true)
    #expect(ide.ask([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]) == [0, 6, 4, 0x10, 3, 1, 0, 0])
    #expect(drive?.isTrayOpen == true)
    #expect(ide.ask([0x00]) == [])
    #expect(ide.sense == [2, 0x3A, 2])
    #expect(moves.value == 1)
    #expect(drive?.eject() == true, "an open tray is open, locked or not")
    drive?.setMedium(FakeImage(sectors: 400))
    #expect(drive?.isTrayOpen == false)
    #expect(ide.ask([0x00]) == [])
    #expect(ide.sense == [6, 0x28, 0])
  }

  @Test("the tray opens and closes, unless it is locked")
  func tray() {
    #expect(ide.ask([0x1E, 0, 0, 0, 1]) == [])
    #expect(drive?.isLocked == true)
    #expect(ide.ask([0x1B, 0, 0, 0, 2]) == [])
    #expect(ide.sense == [5, 0x53, 2])
    #expect(ide.ask([0x1E, 0, 0, 0, 0]) == [])
    #expect(ide.ask([0x1B, 0, 0, 0, 2]) == [])
    #expect(ide.ask([0x00]) == [])
    #expect(ide.sense == [2, 0x3A, 2])
    #expect(ide.ask([0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 8])[1] == 0x10)
    #expect(ide.ask([0x1B, 0, 0, 0, 3]) == [])
    #expect(ide.ask([0x00]) == [])
    #expect(ide.sense == [6, 0x28, 0])
    #expect(ide.ask(read10(0, 1)) == sectors(0, 1))
    // Start and stop without the tray do nothing.
    #expect(ide.ask([0x1B, 0, 0, 0, 0]) == [])
    #expect(ide.ask(read10(0, 1)) == sectors(0, 1))
  }

  @Test("the table of contents has one data track and the lead-out, in both notations")
  func tableOfContents() {
    #expect(
      ide.ask([0x43, 0, 0, 0, 0, 0, 0, 0, 20])
        == [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xAA, 0, 0, 0, 4, 0])
    // 1024 sectors and the 2 s before them: 15 s 49 frames.
    #expect(
      ide.ask([0x43, 2, 0, 0, 0, 0, 1, 0, 20])
        == [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 2, 0, 0, 0x14, 0xAA, 0, 0, 0, 15, 49])
    #expect(
      ide.ask([0x43, 0, 0, 0, 0, 0, 0xAA, 0, 12]) == [0, 10, 1, 1, 0, 0x14, 0xAA, 0, 0, 0, 4, 0])
    #expect(ide.ask([0x43, 0, 1, 0, 0, 0, 0, 0, 12]) == [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0])
    #expect(ide.ask([0x43, 2, 2, 0, 0, 0, 0, 0, 255]).count == 48)
    // The format may also lie in the last byte, as old software sends it.
    #expect(ide.ask([0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40]).count == 12)
    #expect(ide.ask([0x43, 0, 0, 0, 0, 0, 2, 0, 12]) == [])
    #expect(ide.sense == [5, 0x24, 0])
  }

  @Test("MODE SENSE has the pages that drivers read, short and long")
  func modeSense() {
    let long = ide.ask([0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 128])
    #expect(long.count == 28 && long[1] == 26 && long[8] == 0x2A && long[9] == 18)
    let short = ide.ask([0x1A, 0, 0x2A, 0, 128])
    #expect(short.count == 24 && short[0] == 23 && short[4] == 0x2A)
    #expect(ide.ask([0x5A, 0, 0x01, 0, 0, 0, 0, 0, 128]).count == 16)
    #expect(ide.ask([0x5A, 0, 0x3F, 0, 0, 0, 0, 1, 0]).count == 8 + 8 + 16 + 20)
    #expect(ide.ask([0x5A, 0, 0x07, 0, 0, 0, 0, 0, 128]) == [])
    #expect(ide.sense == [5, 0x24, 0])
    #expect(ide.ask([0x5A, 0, 0xEA, 0, 0, 0, 0, 0, 128]) == [])
    #expect(ide.sense == [5, 0x39, 0])
  }

  @Test("GET CONFIGURATION lists features, from a start, the current ones, or one")
  func configuration() {
    let all = ide.ask([0x46, 0, 0, 0, 0, 0, 0, 1, 0])
    #expect(big(all.count - 4, 4) == Array(all.prefix(4)))
    #expect(all[7] == 0x08)
    #expect(all[8...11].elementsEqual([0, 0, 3, 8]))
    let current = ide.ask([0x46, 1, 0, 0, 0, 0, 0, 1, 0])
    #expect(current.count < all.count)
    let one = ide.ask([0x46, 2, 0, 0x1E, 0, 0, 0, 1, 0])
    #expect(one.count == 16 && one[9] == 0x1E)
    #expect(ide.ask([0x46, 0, 0, 0x1F, 0, 0, 0, 1, 0]).count == 16)
    #expect(ide.ask([0x46, 0, 0, 0, 0, 0, 0, 0, 8]) == Array(all.prefix(8)))
  }

  @Test("an image larger than a CD is a DVD")
  func dvd() {
    let image = FakeImage(sectors: 0)
    image.sparseByteCount = 700_000 * 2048
    let ide = IDEBench(cd: image).secondary
    #expect(ide.ask([0x46, 0, 0, 0, 0, 0, 0, 0, 8])[7] == 0x10)
    #expect(ide.ask([0xAD, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x08]).count == 2052)
    #expect(ide.ask([0xAD, 0, 0, 0, 0, 0, 0, 1, 0, 8]) == [0, 6, 0, 0, 0, 0, 0, 0])
    #expect(self.ide.ask([0xAD, 0, 0, 0, 0, 0, 0, 0, 8, 8]) == [])
    #expect(self.ide.sense == [5, 0x30, 2])
  }

  @Test("READ CD gives user data, or whole sectors with sync and header")
  func readCD() {
    #expect(ide.ask([0xBE, 0] + big(9, 4) + big(2, 3) + [0x10]) == sectors(9, 2))
    let raw = ide.ask([0xBE, 0] + big(9, 4) + big(2, 3) + [0xF8])
    #expect(raw.count == 2 * 2352)
    #expect(Array(raw[0..<16]) == [0] + Array(repeating: 0xFF, count: 10) + [0, 0, 2, 9, 1])
    #expect(Array(raw[16..<2064]) == sectors(9, 1))
    #expect(Array(raw[2352 + 16..<2352 + 2064]) == sectors(10, 1))
    #expect(ide.ask([0xB9, 0, 0, 0, 2, 9, 0, 2, 11, 0x10]) == sectors(9, 2))
    #expect(ide.ask([0xB9, 0, 0, 0, 0, 0, 0, 0, 1, 0x10]) == [])
    #expect(ide.sense == [5, 0x21, 0])
    #expect(ide.ask([0xBE, 0] + big(9, 4) + big(2, 3) + [0x00]) == [])
    #expect(ide.status == 0x50)
    #expect(ide.ask([0xBE, 0] + big(9, 4) + big(2, 3) + [0x40]) == [])
    #expect(ide.sense == [5, 0x24, 0])
  }

  @Test("disc and track information, seek, verify and speed are answered")
  func others() {
    #expect(ide.ask([0x51, 0, 0, 0, 0, 0, 0, 0, 34])[2] == 0x0E)
    #expect(ide.ask([0x52, 1, 0, 0, 0, 1, 0, 0, 36])[24..<28].elementsEqual(big(1024, 4)))
    for packet: [UInt8] in [
      [0x2B, 0] + big(5, 4), [0x2F, 0] + big(5, 4), [0xBB], [0x35], [0x1E, 0, 0, 0, 0],
    ] {
      #expect(ide.ask(packet) == [])
      #expect(ide.status == 0x50)
    }
    #expect(ide.ask([0x2B, 0] + big(1024, 4)) == [])
    #expect(ide.sense == [5, 0x21, 0])
    #expect(ide.ask([0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8]) == [])
    #expect(ide.sense == [5, 0x24, 0])
    #expect(ide.ask([0x4A, 1, 0, 0, 0x02, 0, 0, 0, 8]) == [0, 2, 0x80, 0x10])
  }

  @Test("a half-sent packet, half-read sector and pending attention survive save and restore")
  func saved() throws {
    ide.write(4, 0)
    ide.write(5, 8)
    ide.write(7, 0xA0)
    let packet = read10(30, 3) + [0, 0, 0]
    ide.writeWords(Array(packet.prefix(6)))
    let second = try bench.moved()
    second.secondary.writeWords(Array(packet.dropFirst(6)))
    let third = try second.moved()
    third.complete()
    #expect(third.lines.secondary.level)
    let start = third.secondary.readWords(500)
    let fourth = try third.moved()
    var bytes = start + fourth.secondary.readWords(2048 - 500)
    bytes += fourth.secondary.packetData()
    #expect(bytes == sectors(30, 3))
    fourth.controller.cdrom(at: 2)?.setMedium(fourth.cd)
    let fifth = try fourth.moved()
    #expect(fifth.secondary.ask([0x00]) == [])
    #expect(fifth.secondary.sense == [6, 0x28, 0])
  }

  @Test("a DMA read survives save and restore", arguments: 0..<3)
  func savedDMA(completed: Int) throws {
    ide.describe((0..<4).map { (UInt32(0x40000 + $0 * 0x10000), 0) })
    ide.write(6, 0xA0)
    ide.write(1, 1)
    ide.write(7, 0xA0)
    ide.writeWords(read10(10, 128) + [0, 0, 0])
    ide.start(toMemory: true)
    for _ in 0..<completed { bench.cd?.completeOne() }
    let moved = try bench.moved()
    moved.complete()
    #expect(moved.secondary.busMasterStatus == 4 && moved.secondary.status == 0x50)
    #expect(Array(bench.memory.bytes[0x40000..<0x80000]) == sectors(10, 128))
  }
}
