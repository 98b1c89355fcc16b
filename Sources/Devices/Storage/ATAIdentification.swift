/// The 256 words of IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA/ATAPI-6, 8.15
/// and 8.16).
struct ATAIdentification {
  private var words = [UInt16](repeating: 0, count: 256)

  subscript(word: Int) -> UInt16 {
    get { words[word & 0xFF] }
    set { words[word & 0xFF] = newValue }
  }

  /// A number over two or four words, low word first.
  mutating func set(_ number: UInt64, at word: Int, words count: Int) {
    for index in 0..<count {
      self[word + index] = UInt16(truncatingIfNeeded: number >> UInt64(index * 16))
    }
  }

  /// Text padded with spaces, its bytes swapped in each word.
  mutating func set(_ text: String, at word: Int, words count: Int) {
    var bytes = Array(text.utf8.prefix(count * 2))
    bytes += Array(repeating: 0x20, count: count * 2 - bytes.count)
    for index in 0..<count {
      self[word + index] = UInt16(bytes[index * 2]) << 8 | UInt16(bytes[index * 2 + 1])
    }
  }

  /// Multiword and Ultra DMA modes supported, and the one selected.
  mutating func setTransferModes(selected mode: UInt8) {
    let multiword: UInt16 = (0x20...0x22).contains(mode) ? 0x100 << UInt16(mode & 7) : 0
    let ultra: UInt16 = (0x40...0x45).contains(mode) ? 0x100 << UInt16(mode & 7) : 0
    self[63] = 0x07 | multiword
    self[88] = 0x3F | ultra
  }

  var bytes: [UInt8] {
    words.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
  }
}

extension ATADisk {
  /// Cylinders, heads and sectors that describe the disk to old software.
  private var cylinders: UInt16 {
    UInt16(
      clamping: min(sectorCount / UInt64(Self.defaultHeads * Self.defaultSectorsPerTrack), 16383))
  }

  var identification: [UInt8] {
    var data = ATAIdentification()
    data[0] = 0x0040  // fixed
    data[1] = cylinders
    data[3] = UInt16(Self.defaultHeads)
    data[6] = UInt16(Self.defaultSectorsPerTrack)
    data.set(serial, at: 10, words: 10)
    data.set("1.0", at: 23, words: 4)
    data.set("CARREL HARDDISK", at: 27, words: 20)
    data[47] = 0x8000 | UInt16(Self.maximumMultiple)
    data[48] = 1  // 32-bit data port
    data[49] = 0x0F00  // DMA, LBA, IORDY
    data[51] = 0x0200
    data[52] = 0x0200
    data[53] = 0x0007  // words 54–58, 64–70 and 88 are valid
    let track = settings.sectorsPerTrack * settings.heads
    let currentCylinders = UInt16(
      clamping: min(sectorCount / UInt64(max(track, 1)), UInt64(UInt16.max)))
    data[54] = currentCylinders
    data[55] = UInt16(clamping: settings.heads)
    data[56] = UInt16(clamping: settings.sectorsPerTrack)
    data.set(UInt64(currentCylinders) * UInt64(track), at: 57, words: 2)
    data[59] = settings.multiple == 0 ? 0 : 0x100 | UInt16(clamping: settings.multiple)
    data.set(min(sectorCount, 0x0FFF_FFFF), at: 60, words: 2)
    data.setTransferModes(selected: settings.transferMode)
    data[64] = 0x03  // PIO 3 and 4
    for word in 65...68 { data[word] = 120 }
    data[80] = 0x00F0  // ATA/ATAPI-4 to 7
    data[81] = 0x0016
    // SMART, power management, write cache, look-ahead; 48-bit, flush.
    data[82] = 0x4069
    data[83] = 0x7400
    data[84] = 0x4000
    data[85] =
      0x4008 | (settings.smartEnabled ? 1 : 0) | (settings.writeCache ? 0x20 : 0)
      | (settings.lookAhead ? 0x40 : 0)
    data[86] = 0x3400
    data[87] = 0x4000
    data[93] = 0x600B  // hardware reset result: 80-wire cable
    data.set(sectorCount, at: 100, words: 4)
    data[255] = 0xA5
    var bytes = data.bytes
    bytes[511] = 0 &- bytes.dropLast().reduce(0, &+)
    return bytes
  }
}

extension ATAPIDrive {
  var identification: [UInt8] {
    var data = ATAIdentification()
    // Removable CD-ROM, requests its packet within 50 us, 12-byte packets.
    data[0] = 0x85C0
    data.set("CD0001", at: 10, words: 10)
    data.set("1.0", at: 23, words: 4)
    data.set("CARREL DVD-ROM", at: 27, words: 20)
    data[48] = 1
    data[49] = 0x0F00
    data[53] = 0x0007
    data.setTransferModes(selected: settings.transferMode)
    data[64] = 0x03
    for word in 65...68 { data[word] = 120 }
    data[71] = 30
    data[72] = 30
    data[80] = 0x00F0
    data[82] = 0x4210  // packet, device reset, NOP
    data[83] = 0x4000
    data[84] = 0x4000
    data[85] = 0x4210
    data[87] = 0x4000
    data[93] = 0x600B
    return data.bytes
  }
}
