import DeviceModel

/// Ports 3B0h–3DFh: byte registers, so that a word written to an index port sets
/// index and data.
final class VGAPorts: BusTarget {
  private let core: VGACore

  init(_ core: VGACore) { self.core = core }

  func read(offset: UInt64, width: Int) -> UInt64 {
    UInt64(core.readPort(offset: UInt16(truncatingIfNeeded: offset)))
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    core.writePort(
      offset: UInt16(truncatingIfNeeded: offset), value: UInt8(truncatingIfNeeded: value))
  }
}

/// Ports 1CEh–1D1h: the VBE index, and the data register at 1CFh and 1D0h (the
/// latter for processors that want words aligned).
final class VBEPorts: BusTarget {
  let maximumAccessWidth = 2
  private let core: VGACore

  init(_ core: VGACore) { self.core = core }

  func read(offset: UInt64, width: Int) -> UInt64 {
    switch offset {
    case 0: UInt64(core.vbeIndex)
    case 1, 2: UInt64(core.readVBE(core.vbeIndex))
    default: .max
    }
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    let value = UInt16(truncatingIfNeeded: value)
    switch offset {
    case 0: core.vbeIndex = value
    case 1, 2: core.writeVBE(core.vbeIndex, value: value)
    default: break
    }
  }
}

/// A0000h–BFFFFh. Wide accesses arrive whole and are bytes in ascending order.
final class VGAWindow: BusTarget {
  let maximumAccessWidth = 8
  private let core: VGACore

  init(_ core: VGACore) { self.core = core }

  func read(offset: UInt64, width: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<min(width, 8) {
      let byte = core.readWindow(offset: Int(truncatingIfNeeded: offset) &+ index)
      value |= UInt64(byte) << UInt64(index * 8)
    }
    return value
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    for index in 0..<min(width, 8) {
      core.writeWindow(
        offset: Int(truncatingIfNeeded: offset) &+ index,
        value: UInt8(truncatingIfNeeded: value >> UInt64(index * 8)))
    }
  }
}

/// BAR 2: everything again in memory space, for machines without ports.
///
///     000h  EDID
///     400h  VGA registers, 3C0h–3DFh
///     500h  Bochs VBE registers, 16 bits each
///     600h  extended registers: their size, then the byte order of true colour
final class VGARegisterBlock: BusTarget {
  let maximumAccessWidth = 4
  private static let extendedSize: UInt32 = 8
  private static let littleEndian: UInt32 = 0x1E1E_1E1E
  private static let bigEndian: UInt32 = 0xBEBE_BEBE

  private let core: VGACore

  init(_ core: VGACore) { self.core = core }

  func read(offset: UInt64, width: Int) -> UInt64 {
    let at = Int(truncatingIfNeeded: offset & 0xFFF)
    switch at {
    case 0..<0x400:
      let edid = core.edid.bytes
      return assemble(width) { at + $0 < edid.count ? edid[at + $0] : 0 }
    case 0x400..<0x420:
      return assemble(width) { core.readPort(offset: UInt16(truncatingIfNeeded: at - 0x3F0 + $0)) }
    case 0x500..<0x516:
      return assemble(width) {
        let register = core.readVBE(UInt16(truncatingIfNeeded: (at + $0 - 0x500) >> 1))
        return UInt8(truncatingIfNeeded: register >> UInt16(((at + $0) & 1) * 8))
      }
    case 0x600..<0x608:
      let order = core.isBigEndian ? Self.bigEndian : Self.littleEndian
      return assemble(width) {
        let index = at - 0x600 + $0
        let register = index < 4 ? Self.extendedSize : index < 8 ? order : 0
        return UInt8(truncatingIfNeeded: register >> UInt32((index & 3) * 8))
      }
    default: return 0
    }
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    let at = Int(truncatingIfNeeded: offset & 0xFFF)
    switch at {
    case 0x400..<0x420:
      for index in 0..<width {
        core.writePort(
          offset: UInt16(truncatingIfNeeded: at - 0x3F0 + index),
          value: UInt8(truncatingIfNeeded: value >> UInt64(index * 8)))
      }
    case 0x500..<0x516: writeVBE(at - 0x500, width: width, value: value)
    case 0x604 where width == 4:
      switch UInt32(truncatingIfNeeded: value) {
      case Self.littleEndian: core.isBigEndian = false
      case Self.bigEndian: core.isBigEndian = true
      default: break
      }
    default: break
    }
  }

  private func writeVBE(_ at: Int, width: Int, value: UInt64) {
    let register = UInt16(truncatingIfNeeded: at >> 1)
    guard width > 1 else {
      let old = core.readVBE(register)
      let byte = UInt16(truncatingIfNeeded: value & 0xFF)
      let new = at & 1 == 0 ? old & 0xFF00 | byte : old & 0x00FF | byte << 8
      core.writeVBE(register, value: new)
      return
    }
    core.writeVBE(register, value: UInt16(truncatingIfNeeded: value))
    if width == 4 {
      core.writeVBE(register &+ 1, value: UInt16(truncatingIfNeeded: value >> 16))
    }
  }

  private func assemble(_ width: Int, _ byte: (Int) -> UInt8) -> UInt64 {
    (0..<min(width, 8)).reduce(0) { $0 | UInt64(byte($1)) << UInt64($1 * 8) }
  }
}
