import DeviceModel
import Devices
import Testing

@Suite struct ATADiskTests {
  let bench = IDEBench()
  var ide: ChannelBench { bench.primary }

  func sectors(_ first: Int, _ count: Int) -> [UInt8] {
    FakeImage.sectors(first, count)
  }

  /// IDENTIFY's words.
  func identify(_ command: UInt8 = 0xEC) -> [UInt16] {
    ide.command(command)
    bench.complete()
    let bytes = ide.readWords(512)
    return (0..<256).map { UInt16(bytes[$0 * 2]) | UInt16(bytes[$0 * 2 + 1]) << 8 }
  }

  func text(_ words: ArraySlice<UInt16>) -> String {
    String(decoding: words.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }, as: UTF8.self)
  }

  @Test("after power-on the disk is ready and shows its signature")
  func powerOn() {
    #expect(ide.status == 0x50)
    #expect([ide.error, ide.read(2), ide.read(3), ide.read(4), ide.read(5)] == [1, 1, 1, 0, 0])
    #expect(!ide.line.level)
  }

  @Test("an absent drive reads as zeros and does nothing")
  func absent() {
    ide.command(0xEC, device: 1)
    #expect(ide.status == 0)
    #expect(ide.read(2) == 0)
    ide.write(6, 0xE0)
    #expect(ide.status == 0x50)
    let empty = IDEBench(disk: nil).primary
    empty.command(0xEC)
    #expect(empty.status == 0 && !empty.line.level)
  }

  @Test("IDENTIFY names the disk, its size, modes and a valid checksum")
  func identifies() {
    let words = identify()
    #expect(text(words[27..<47]) == "CARREL HARDDISK                         ")
    #expect(text(words[10..<20]) == "CV000001            ")
    #expect(UInt32(words[60]) | UInt32(words[61]) << 16 == 4096)
    #expect(words[100] == 4096 && words[101] == 0)
    #expect(words[47] & 0xFF == 16)
    #expect(words[59] == 0x110)
    #expect(words[83] & 0x2400 == 0x2400)
    #expect(words[63] == 7 && words[88] == 0x203F)
    #expect(words[1] == 4 && words[3] == 16 && words[6] == 63)
    let bytes = words.flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }
    #expect(bytes.reduce(0, &+) == 0)
    #expect(ide.status == 0x50 && !ide.line.level)
  }

  @Test("READ SECTORS interrupts before each sector and not after the last", arguments: [2, 4])
  func readSectors(width: Int) {
    ide.command(0x20, lba: 100, count: 3)
    #expect(ide.alternateStatus == 0x80 && !ide.line.level)
    bench.complete()
    for sector in 100..<103 {
      #expect(ide.line.level)
      #expect(ide.status == 0x58)
      #expect(!ide.line.level)
      #expect(ide.readWords(512, width: width) == FakeImage.pattern(sector))
    }
    #expect(!ide.line.level)
    #expect(ide.status == 0x50)
    #expect(ide.line.edges == 3)
    #expect([ide.read(2), ide.read(3)] == [0, 103])
  }

  @Test("a count of zero means 256 sectors, and 65536 with 48-bit addresses")
  func zeroCount() {
    ide.command(0x20, lba: 0, count: 0)
    bench.complete()
    var bytes: [UInt8] = []
    while ide.alternateStatus & 0x08 != 0 { bytes += ide.readWords(512) }
    #expect(bytes == sectors(0, 256))
    ide.command48(0x24, lba: 0, count: 0)
    #expect(ide.status == 0x51 && ide.error == 0x10)
  }

  @Test("READ MULTIPLE moves whole blocks and a short last one")
  func readMultiple() {
    ide.command(0xC6, count: 8)
    #expect(ide.status == 0x50)
    ide.command(0xC4, lba: 10, count: 20)
    bench.complete()
    var edges: [Int] = []
    for count in [8, 8, 4] {
      #expect(ide.status == 0x58)
      edges.append(ide.line.edges)
      #expect(ide.readWords(count * 512).count == count * 512)
    }
    #expect(edges == [2, 3, 4])
    #expect(ide.status == 0x50)
    #expect([ide.read(2), ide.read(3)] == [0, 30])
  }

  @Test("READ MULTIPLE is refused when it was switched off, odd block sizes always")
  func multipleOff() {
    for count: UInt8 in [3, 32, 17] {
      ide.command(0xC6, count: count)
      #expect(ide.status == 0x51 && ide.error == 0x04)
    }
    ide.command(0xC6, count: 0)
    #expect(ide.status == 0x50)
    ide.command(0xC4, lba: 0, count: 1)
    #expect(ide.status == 0x51 && ide.error == 0x04)
    #expect(identify()[59] == 0)
  }

  @Test("WRITE SECTORS wants the first sector at once and interrupts for the others")
  func writeSectors() {
    ide.command(0x30, lba: 50, count: 2)
    #expect(ide.status == 0x58 && ide.line.edges == 0)
    ide.writeWords(FakeImage.pattern(1))
    #expect(ide.alternateStatus == 0x80 && !ide.line.level)
    bench.complete()
    #expect(ide.line.level && ide.status == 0x58)
    ide.writeWords(FakeImage.pattern(2), width: 4)
    bench.complete()
    #expect(ide.line.level && ide.status == 0x50)
    #expect(bench.disk?.bytes[50 * 512..<52 * 512].elementsEqual(sectors(1, 2)) == true)
    #expect([ide.read(2), ide.read(3)] == [0, 52])
  }

  @Test("WRITE MULTIPLE writes block by block")
  func writeMultiple() {
    ide.command(0xC6, count: 4)
    _ = ide.status
    ide.command(0xC5, lba: 200, count: 6)
    ide.writeWords(sectors(0, 4))
    bench.complete()
    #expect(ide.status == 0x58)
    ide.writeWords(sectors(4, 2))
    bench.complete()
    #expect(ide.status == 0x50)
    #expect(bench.disk?.bytes[200 * 512..<206 * 512].elementsEqual(sectors(0, 6)) == true)
  }

  @Test("48-bit reads and writes use both bytes of each register")
  func extended() {
    let sparse = FakeImage(sectors: 4096)
    let ide = IDEBench(disk: sparse).primary
    ide.command48(0x24, lba: 0x0800, count: 300)
    sparse.complete()
    var bytes: [UInt8] = []
    while ide.alternateStatus & 0x08 != 0 {
      bytes += ide.readWords(512)
      sparse.complete()
    }
    #expect(bytes == sectors(0x800, 300))
    #expect([ide.read(3), ide.read(4), ide.read(5)] == [0x2C, 0x09, 0])
    ide.control(0x80)
    #expect([ide.read(2), ide.read(3), ide.read(4), ide.read(5)] == [0, 0, 0, 0])
    ide.command48(0x34, lba: 0x0801, count: 1)
    ide.writeWords(FakeImage.pattern(9))
    sparse.complete()
    #expect(ide.status == 0x50)
    #expect(sparse.bytes[0x801 * 512..<0x802 * 512].elementsEqual(FakeImage.pattern(9)))
    ide.command48(0x24, lba: 1 << 40, count: 1)
    #expect(ide.status == 0x51 && ide.error == 0x10)
    ide.command48(0x29, lba: 5, count: 2)
    sparse.complete()
    #expect(ide.readWords(1024) == sectors(5, 2))
  }

  @Test("cylinder, head and sector addresses follow the geometry that was set")
  func geometry() {
    func readCHS(_ cylinder: UInt8, _ head: UInt8, _ sector: UInt8) -> [UInt8] {
      ide.write(6, 0xA0 | head)
      ide.write(2, 1)
      ide.write(3, sector)
      ide.write(4, cylinder)
      ide.write(5, 0)
      ide.write(7, 0x20)
      bench.complete()
      return ide.status == 0x58 ? ide.readWords(512) : []
    }
    #expect(readCHS(1, 2, 3) == FakeImage.pattern((1 * 16 + 2) * 63 + 2))
    #expect(readCHS(0, 0, 0) == [])
    #expect(ide.error == 0x10)
    ide.write(6, 0xA0 | 3)
    ide.write(2, 32)
    ide.write(7, 0x91)
    #expect(ide.status == 0x50)
    #expect(readCHS(2, 3, 32) == FakeImage.pattern((2 * 4 + 3) * 32 + 31))
    #expect([ide.read(3), ide.read(6) & 0xF, ide.read(4)] == [1, 0, 3])
    let words = identify()
    #expect(words[55] == 4 && words[56] == 32)
  }

  @Test("what lies beyond the end is not found, and nothing moves")
  func beyondEnd() {
    for command: UInt8 in [0x20, 0x30, 0xC4, 0xC5, 0xC8, 0xCA, 0x40] {
      ide.command(command, lba: 4095, count: 2)
      #expect(ide.line.level)
      #expect(ide.status == 0x51 && ide.error == 0x10)
    }
    ide.command(0x20, lba: 4095, count: 1)
    bench.complete()
    #expect(ide.readWords(512) == FakeImage.pattern(4095))
  }

  @Test("medium errors, full disks and read-only images end the command with an error")
  func errors() {
    bench.disk?.failure = BlockError(kind: .medium, context: "test")
    ide.command(0x20, lba: 0, count: 1)
    bench.complete()
    #expect(ide.line.level && ide.status == 0x51 && ide.error == 0x40)
    bench.disk?.failure = BlockError(kind: .noSpace, context: "test")
    ide.command(0x30, lba: 0, count: 1)
    ide.writeWords(FakeImage.pattern(0))
    bench.complete()
    #expect(ide.line.level && ide.status == 0x51 && ide.error == 0x04)
    ide.command(0xE7)
    bench.complete()
    #expect(ide.status == 0x51)
    bench.disk?.failure = nil
    bench.disk?.isReadOnly = true
    ide.command(0x30, lba: 0, count: 1)
    #expect(ide.status == 0x51 && ide.error == 0x04)
    ide.command(0x20, lba: 0, count: 1)
    bench.complete()
    #expect(ide.status == 0x58 && ide.error == 0)
  }

  @Test("FLUSH CACHE waits for the image", arguments: [0xE7, 0xEA] as [UInt8])
  func flush(command: UInt8) {
    ide.command(command)
    #expect(ide.alternateStatus == 0x80)
    bench.complete()
    #expect(ide.line.level && ide.status == 0x50)
    #expect(bench.disk?.flushes == 1)
  }

  @Test("without its write cache a disk flushes after each write")
  func writeThrough() {
    ide.command(0xEF, features: 0x82)
    bench.complete()
    #expect(ide.status == 0x50 && bench.disk?.flushes == 1)
    #expect(identify()[85] & 0x20 == 0)
    ide.command(0x30, lba: 0, count: 2)
    ide.writeWords(FakeImage.pattern(0))
    bench.complete()
    ide.writeWords(FakeImage.pattern(0))
    bench.complete()
    #expect(ide.status == 0x50 && bench.disk?.flushes == 2)
    ide.command(0xEF, features: 0x02)
    #expect(ide.status == 0x50)
    #expect(identify()[85] & 0x20 != 0)
  }

  @Test("transfer modes that exist can be set and are shown")
  func transferModes() {
    for (mode, multiword, ultra): (UInt8, UInt16, UInt16) in [
      (0x22, 0x0407, 0x003F), (0x42, 0x0007, 0x043F), (0x0C, 0x0007, 0x003F),
    ] {
      ide.command(0xEF, count: mode, features: 0x03)
      #expect(ide.status == 0x50)
      let words = identify()
      #expect(words[63] == multiword && words[88] == ultra)
    }
    for mode: UInt8 in [0x02, 0x0D, 0x23, 0x46, 0xFF] {
      ide.command(0xEF, count: mode, features: 0x03)
      #expect(ide.status == 0x51)
    }
    for feature: UInt8 in [0x55, 0xAA, 0x66, 0xCC, 0x05, 0x85] {
      ide.command(0xEF, features: feature)
      #expect(ide.status == 0x50)
    }
    ide.command(0xEF, features: 0x99)
    #expect(ide.status == 0x51)
  }

  @Test(
    "commands without data complete with an interrupt",
    arguments: [0x10, 0x70, 0x40, 0x41, 0x94, 0x95, 0x96, 0x97, 0xE0, 0xE1, 0xE2, 0xE3, 0xE6]
      as [UInt8])
  func noData(command: UInt8) {
    ide.command(command, lba: 5, count: 1)
    #expect(ide.line.level)
    #expect(ide.status == 0x50 && ide.error == 0)
  }

  @Test("the power mode is active, and the native size is told")
  func power() {
    for command: UInt8 in [0x98, 0xE5] {
      ide.command(command)
      #expect(ide.read(2) == 0xFF && ide.status == 0x50)
    }
    ide.command(0xF8)
    #expect([ide.read(3), ide.read(4), ide.read(5)] == [0xFF, 0x0F, 0])
    ide.command(0x27)
    #expect([ide.read(3), ide.read(4), ide.read(5)] == [0xFF, 0x0F, 0])
  }

  @Test("SMART can be switched, says all is well, and has valid empty tables")
  func smart() {
    ide.command(0xB0, lba: 0xC24F00, features: 0xDA)
    #expect(ide.status == 0x50 && ide.read(4) == 0x4F && ide.read(5) == 0xC2)
    for feature: UInt8 in [0xD0, 0xD1] {
      ide.command(0xB0, lba: 0xC24F00, features: feature)
      #expect(ide.readWords(512).reduce(0, &+) == 0)
    }
    ide.command(0xB0, lba: 0xC24F00, features: 0xD9)
    #expect(ide.status == 0x50)
    ide.command(0xB0, lba: 0xC24F00, features: 0xDA)
    #expect(ide.status == 0x51)
    ide.command(0xB0, lba: 0xC24F00, features: 0xD8)
    #expect(ide.status == 0x50)
    ide.command(0xB0, lba: 0, features: 0xDA)
    #expect(ide.status == 0x51)
  }

  @Test(
    "commands that a disk lacks are aborted",
    arguments: [0x00, 0x08, 0x22, 0xA0, 0xA1, 0xC0, 0xF0, 0xFF] as [UInt8])
  func unknown(command: UInt8) {
    ide.command(command)
    #expect(ide.line.level)
    #expect(ide.status == 0x51 && ide.error == 0x04)
  }

  @Test("EXECUTE DEVICE DIAGNOSTIC passes and shows the signature")
  func diagnostic() {
    ide.command(0x90, lba: 0x123456, count: 9)
    #expect(ide.line.level && ide.status == 0x50)
    #expect([ide.error, ide.read(2), ide.read(3), ide.read(4), ide.read(5)] == [1, 1, 1, 0, 0])
  }

  @Test("a software reset stops whatever is going on")
  func softReset() {
    ide.command(0x20, lba: 0, count: 4)
    let before = bench.disk?.timesForgotten ?? 0
    ide.control(0x06)
    #expect(bench.disk?.timesForgotten == before + 1, "what waits for its image is taken back")
    #expect(ide.alternateStatus == 0x80)
    ide.control(0x02)
    #expect(ide.alternateStatus == 0x50)
    bench.complete()
    #expect(ide.alternateStatus == 0x50 && !ide.line.level)
    #expect([ide.error, ide.read(2), ide.read(3), ide.read(4), ide.read(5)] == [1, 1, 1, 0, 0])
    ide.control(0)
    ide.command(0x20, lba: 7, count: 1)
    bench.complete()
    #expect(ide.readWords(512) == FakeImage.pattern(7))
  }

  @Test("with interrupts disabled the line stays low, and rises when they are enabled")
  func interruptDisable() {
    ide.control(0x02)
    ide.command(0x20, lba: 0, count: 1)
    bench.complete()
    #expect(ide.alternateStatus == 0x58 && !ide.line.level)
    ide.control(0)
    #expect(ide.line.level)
    #expect(ide.alternateStatus == 0x58 && ide.line.level)
    #expect(ide.status == 0x58 && !ide.line.level)
  }

  @Test("a busy disk ignores commands, and one that wants data too")
  func busy() {
    ide.command(0x20, lba: 1, count: 1)
    ide.write(7, 0xEC)
    bench.complete()
    ide.write(7, 0xEC)
    #expect(ide.readWords(512) == FakeImage.pattern(1))
    #expect(ide.status == 0x50)
  }

  @Test("data port accesses outside a transfer do nothing")
  func strayData() {
    #expect(ide.readWords(4) == [0, 0, 0, 0])
    ide.writeWords([1, 2, 3, 4])
    ide.command(0x30, lba: 0, count: 1)
    #expect(ide.readWords(2) == [0, 0])
    ide.writeWords(FakeImage.pattern(3))
    bench.complete()
    #expect(bench.disk?.bytes.prefix(512).elementsEqual(FakeImage.pattern(3)) == true)
    #expect(ide.read(0) == 0xFF)
  }

  @Test("a hard reset brings power-on settings back")
  func hardReset() {
    ide.command(0xC6, count: 4)
    ide.command(0x20, lba: 0, count: 4)
    bench.controller.reset()
    bench.complete()
    #expect(ide.status == 0x50 && !ide.line.level)
    #expect(identify()[59] == 0x110)
  }

  @Test("a half-read sector survives save and restore")
  func savedPIO() throws {
    ide.command(0x20, lba: 20, count: 3)
    bench.complete()
    let first = ide.readWords(700 & ~1)
    let moved = try bench.moved()
    let rest = moved.primary.readWords(3 * 512 - first.count)
    #expect(first + rest == sectors(20, 3))
    #expect(moved.primary.status == 0x50)
  }

  @Test("a read under way is made anew after restore")
  func savedRead() throws {
    ide.command(0x20, lba: 20, count: 1)
    let moved = try bench.moved()
    #expect(moved.primary.alternateStatus == 0x80)
    moved.complete()
    #expect(moved.lines.primary.level)
    #expect(moved.primary.readWords(512) == FakeImage.pattern(20))
  }

  @Test("a half-written sector, and a write under way, survive save and restore")
  func savedWrite() throws {
    ide.command(0x30, lba: 20, count: 2)
    ide.writeWords(Array(FakeImage.pattern(1).prefix(100)))
    let second = try bench.moved()
    second.primary.writeWords(Array(FakeImage.pattern(1).dropFirst(100)))
    let third = try second.moved()
    third.complete()
    #expect(third.primary.status == 0x58)
    third.primary.writeWords(FakeImage.pattern(2))
    third.complete()
    #expect(third.primary.status == 0x50)
    #expect(third.disk?.bytes[20 * 512..<22 * 512].elementsEqual(sectors(1, 2)) == true)
  }
}
