/// The CPU's view of display memory through A0000h–BFFFFh: which byte of which
/// planes an address means, and the data path with its latches.
struct LegacyWindow {
  /// Where an access lands: a plane address, and the planes that take part.
  private struct Target {
    var index: Int
    var planes: UInt32
    var readPlane: Int
  }

  /// The byte in every plane whose bit is set in the low nibble of `planes`.
  static func spread(_ planes: UInt32) -> UInt32 {
    let bits = planes & 1 | (planes & 2) << 7 | (planes & 4) << 14 | (planes & 8) << 21
    return bits &* 0xFF
  }

  static func read(
    offset: Int, registers: inout VGARegisters, vbe: BochsVBE, memory: VideoMemory
  ) -> UInt8 {
    guard let address = memoryAddress(offset: offset, registers: registers, vbe: vbe) else {
      return 0xFF
    }
    let target = target(of: address, registers: registers, vbe: vbe)
    guard target.index * 4 < memory.count else { return 0xFF }
    let latch = memory.planes(at: target.index)
    registers.latch = latch
    let comparesColors = registers.graphics[Graphics.mode] & 0x08 != 0
    guard comparesColors && target.planes == 0x0F else {
      return UInt8(truncatingIfNeeded: latch >> UInt32(target.readPlane * 8))
    }
    let compare = spread(UInt32(registers.graphics[Graphics.colorCompare]))
    let cares = spread(UInt32(registers.graphics[Graphics.colorDontCare]))
    var differs = (latch ^ compare) & cares
    differs |= differs >> 16
    differs |= differs >> 8
    return ~UInt8(truncatingIfNeeded: differs)
  }

  static func write(
    offset: Int, value: UInt8, registers: VGARegisters, vbe: BochsVBE, memory: inout VideoMemory
  ) {
    guard let address = memoryAddress(offset: offset, registers: registers, vbe: vbe) else {
      return
    }
    if vbe.isEnabled && !vbe.isPlanar {
      guard address < memory.count else { return }
      memory[address] = value
      return
    }
    let target = target(of: address, registers: registers, vbe: vbe)
    guard target.index * 4 < memory.count else { return }
    let mapMask = UInt32(registers.sequencer[Sequencer.mapMask]) & target.planes
    let writable = spread(mapMask)
    let data = dataPath(value, registers: registers)
    let old = memory.planes(at: target.index)
    memory.setPlanes(at: target.index, to: old & ~writable | data & writable)
    if mapMask & 4 != 0 { memory.fontsChanged = true }
  }

  /// Rotate, set/reset, logical function and bit mask, for all planes at once.
  private static func dataPath(_ value: UInt8, registers: VGARegisters) -> UInt32 {
    let graphics = registers.graphics
    let latch = registers.latch
    let rotation = UInt32(graphics[Graphics.dataRotate] & 7)
    let rotated = UInt8(
      truncatingIfNeeded: UInt32(value) >> rotation | UInt32(value) << (8 - rotation))
    let setReset = spread(UInt32(graphics[Graphics.setReset]))
    var bitMask = UInt32(graphics[Graphics.bitMask])
    var data: UInt32
    switch graphics[Graphics.mode] & 3 {
    case 1: return latch
    case 2: data = spread(UInt32(value))
    case 3:
      data = setReset
      bitMask &= UInt32(rotated)
    default:
      let enabled = spread(UInt32(graphics[Graphics.enableSetReset]))
      data = UInt32(rotated) &* 0x0101_0101 & ~enabled | setReset & enabled
    }
    switch graphics[Graphics.dataRotate] >> 3 & 3 {
    case 1: data &= latch
    case 2: data |= latch
    case 3: data ^= latch
    default: break
    }
    bitMask &*= 0x0101_0101
    return data & bitMask | latch & ~bitMask
  }

  /// The offset into display memory, or nil where the memory map select leaves
  /// this part of the window undecoded.
  private static func memoryAddress(
    offset: Int, registers: VGARegisters, vbe: BochsVBE
  ) -> Int? {
    let offset = offset & 0x1FFFF
    switch registers.graphics[Graphics.miscellaneous] >> 2 & 3 {
    case 0: return offset
    case 1: return offset < 0x10000 ? offset + Int(vbe.bank) << 16 : nil
    case 2: return (0x10000..<0x18000).contains(offset) ? offset - 0x10000 : nil
    default: return offset >= 0x18000 ? offset - 0x18000 : nil
    }
  }

  private static func target(
    of address: Int, registers: VGARegisters, vbe: BochsVBE
  ) -> Target {
    let readMap = Int(registers.graphics[Graphics.readMapSelect] & 3)
    let chains4 =
      vbe.isEnabled
      ? !vbe.isPlanar : registers.sequencer[Sequencer.memoryMode] & 0x08 != 0
    if chains4 {
      return Target(index: address >> 2, planes: 1 << UInt32(address & 3), readPlane: address & 3)
    }
    if registers.graphics[Graphics.mode] & 0x10 != 0 {
      return Target(
        index: address >> 1, planes: address & 1 == 0 ? 0b0101 : 0b1010,
        readPlane: readMap & 2 | address & 1)
    }
    return Target(index: address, planes: 0x0F, readPlane: readMap)
  }
}
