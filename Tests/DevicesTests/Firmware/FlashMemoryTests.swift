import Devices
import Testing

/// Remembers what the chip says of its array.
private final class FakeArray: FlashArray {
  let bytes: UnsafeMutableRawBufferPointer
  var switches: [Bool] = []
  var changes: [Range<Int>] = []

  init(blocks: Int = 4, filledWith byte: UInt8 = 0xFF) {
    // SAFETY: allocated here, freed in deinit.
    bytes = .allocate(byteCount: blocks * FlashMemory.blockSize, alignment: 16)
    bytes.initializeMemory(as: UInt8.self, repeating: byte)
  }

  deinit { bytes.deallocate() }

  func setReadsArray(_ on: Bool) { switches.append(on) }
  func changed(_ range: Range<Int>) { changes.append(range) }
}

@Suite("A flash chip with Intel's commands")
struct FlashMemoryTests {
  private let array = FakeArray()
  private let chip: FlashMemory

  init() { chip = FlashMemory(array: array, state: nil) }

  private func write(_ values: UInt8..., at offset: UInt64 = 0) {
    for value in values { chip.write(offset: offset, width: 1, value: UInt64(value)) }
  }

  private func read(_ offset: UInt64 = 0) -> UInt8 {
    UInt8(truncatingIfNeeded: chip.read(offset: offset, width: 1))
  }

  @Test("is told from ROM and RAM as UEFI's driver does it")
  func detection() {
    array.bytes[5] = 0xAA
    write(0x50, at: 5)
    #expect(read(5) == 0xAA)
    write(0x70, at: 5)
    #expect(read(5) == 0)
    write(0xFF, at: 5)
    #expect(read(5) == 0xAA)
    #expect(array.switches == [true, false, true])
  }

  @Test("programming clears bits, erasing a block sets them")
  func programming() {
    write(0x10, 0x5A, at: 0x1001)
    #expect(read() == 0x80)
    write(0x40, 0xF0, at: 0x1001)
    write(0xFF)
    #expect(read(0x1001) == 0x50)
    #expect(array.changes == [0x1001..<0x1002, 0x1001..<0x1002])
    write(0x20, 0xD0, at: 0x1FFF)
    #expect(read() == 0x80)
    write(0xFF)
    #expect(read(0x1001) == 0xFF)
    #expect(array.changes.last == 0x1000..<0x2000)
  }

  @Test("an erasure that is not confirmed fails, and the status says so until it is cleared")
  func unconfirmed() {
    array.bytes[0] = 0
    write(0x20, 0x10)
    #expect(read() == 0xB0)
    write(0x50)
    #expect(read() == 0)
    write(0x70)
    #expect(read() == 0)
    #expect(array.bytes[0] == 0)
  }

  @Test("write-to-buffer programs up to 32 bytes of one block together")
  func buffered() {
    write(0xE8, at: 0x100)
    #expect(read() == 0x80)
    write(3, at: 0x100)
    for index: UInt64 in 0..<4 {
      chip.write(offset: 0x100 + index, width: 1, value: 0x10 + index)
    }
    #expect(array.bytes[0x100] == 0xFF)
    write(0xD0)
    #expect(read() == 0x80)
    write(0xFF)
    #expect((0x100..<0x104).map { read($0) } == [0x10, 0x11, 0x12, 0x13])
    #expect(array.changes == [0x100..<0x104])

    // Too many, into another block, and without a confirmation.
    write(0xE8)
    write(32)
    #expect(read() & 0x30 == 0x30)
    write(0x50)
    write(0xE8, 0)
    chip.write(offset: 0x1000, width: 1, value: 0)
    #expect(read() & 0x30 == 0x30)
    write(0x50)
    write(0xE8, 0, 0x12, 0x11)
    #expect(read() & 0x30 == 0x30)
    #expect(array.changes.count == 1)
  }

  @Test("says what it is")
  func identity() {
    write(0x90)
    #expect(read(0) == 0x89 && read(1) == 0x18 && read(2) == 0)
    write(0x98, at: 0x55)
    #expect((0x10...0x13).map { read($0) } == [0x51, 0x52, 0x59, 1])
    #expect(read(0x27) == 14)
    #expect(read(0x2D) == 3 && read(0x2E) == 0 && read(0x2F) == 0x10 && read(0x30) == 0)
    write(0x60, 0xD0)
    #expect(read() == 0x80)
    #expect(chip.read(offset: 1 << 20, width: 1) == 0xFF)
  }

  @Test("goes on in the middle of anything after it was restored")
  func restored() {
    write(0xE8, 1)
    chip.write(offset: 8, width: 1, value: 0x21)
    let other = FakeArray(filledWith: 0)
    let restored = FlashMemory(array: other, state: chip.saveState())
    #expect(other.switches == [false])
    #expect(other.changes == [0..<other.bytes.count])
    restored.write(offset: 9, width: 1, value: 0x22)
    restored.write(offset: 0, width: 1, value: 0xD0)
    #expect(other.bytes[8] == 0x21 && other.bytes[9] == 0x22 && other.bytes[10] == 0xFF)
    restored.reset()
    #expect(other.switches == [false, true])
    #expect(restored.read(offset: 8, width: 1) == 0x21)
  }

  @Test("keeps to its array whatever a guest writes")
  func fuzzed() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<300 {
      #expect(
        FlashFuzzing.run((0..<400).map { _ in UInt8.random(in: .min ... .max, using: &random) }))
    }
  }
}
