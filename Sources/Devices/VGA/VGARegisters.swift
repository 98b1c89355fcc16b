/// The programming model of the VGA: sequencer, CRT controller, graphics and
/// attribute controllers and the DAC, as seen through ports 3B0h–3DFh.
///
/// Names follow the IBM VGA technical reference. A value type without side
/// effects on memory, so that a register script can be replayed on it alone.
package struct VGARegisters: Codable, Sendable, Equatable {
  /// 3C2h/3CCh. Bit 0 chooses the 3Dxh addresses, bits 2–3 the dot clock.
  var miscellaneousOutput: UInt8 = 0
  var featureControl: UInt8 = 0

  var sequencerIndex: UInt8 = 0
  var sequencer = [UInt8](repeating: 0, count: 8)
  var graphicsIndex: UInt8 = 0
  var graphics = [UInt8](repeating: 0, count: 16)
  var crtcIndex: UInt8 = 0
  var crtc = [UInt8](repeating: 0, count: 32)

  /// Bits 0–4 the index, bit 5 "palette address source": the screen shows.
  var attributeIndex: UInt8 = 0
  /// Whether the next write to 3C0h is data.
  var attributeFlipFlop = false
  var attribute = [UInt8](repeating: 0, count: 32)

  var dac = VGAPalette()
  /// One byte of each plane, from the last read of display memory.
  var latch: UInt32 = 0

  package init() {}

  /// Whether the arrays have the lengths that the code relies on; a decoded
  /// state may not.
  var isWellFormed: Bool {
    sequencer.count == 8 && graphics.count == 16 && crtc.count == 32 && attribute.count == 32
      && dac.isWellFormed
  }
}

/// Indices into the register files.
enum Sequencer {
  static let clockingMode = 1
  static let mapMask = 2
  static let characterMapSelect = 3
  static let memoryMode = 4
}

enum Graphics {
  static let setReset = 0
  static let enableSetReset = 1
  static let colorCompare = 2
  static let dataRotate = 3
  static let readMapSelect = 4
  static let mode = 5
  static let miscellaneous = 6
  static let colorDontCare = 7
  static let bitMask = 8
}

enum CRTC {
  static let horizontalTotal = 0x00
  static let endHorizontalDisplay = 0x01
  static let startHorizontalRetrace = 0x04
  static let verticalTotal = 0x06
  static let overflow = 0x07
  static let presetRowScan = 0x08
  static let maximumScanLine = 0x09
  static let cursorStart = 0x0A
  static let cursorEnd = 0x0B
  static let startAddressHigh = 0x0C
  static let startAddressLow = 0x0D
  static let cursorLocationHigh = 0x0E
  static let cursorLocationLow = 0x0F
  static let verticalRetraceStart = 0x10
  static let verticalRetraceEnd = 0x11
  static let verticalDisplayEnd = 0x12
  static let offset = 0x13
  static let underlineLocation = 0x14
  static let modeControl = 0x17
  static let lineCompare = 0x18
}

enum Attribute {
  static let modeControl = 0x10
  static let overscan = 0x11
  static let colorPlaneEnable = 0x12
  static let pixelPanning = 0x13
  static let colorSelect = 0x14
}

extension VGARegisters {
  private static let sequencerMask: [UInt8] = [0x03, 0x3D, 0x0F, 0x3F, 0x0E, 0, 0, 0xFF]
  private static let graphicsMask: [UInt8] = [
    0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF, 0, 0, 0, 0, 0, 0, 0,
  ]

  /// Port 3B0h + `offset`, or all ones where the selected address set (mono or
  /// colour) does not decode. Input status 1 is the caller's: it takes a clock.
  mutating func read(offset: UInt16) -> UInt8 {
    let port = 0x3B0 &+ offset
    guard decodes(port) else { return 0xFF }
    switch port {
    case 0x3C0: return attributeFlipFlop ? 0 : attributeIndex
    case 0x3C1: return attribute[Int(attributeIndex & 0x1F)]
    case 0x3C2: return 0x10  // Switch sense: a colour monitor answers.
    case 0x3C3: return 0x01
    case 0x3C4: return sequencerIndex
    case 0x3C5: return sequencer[Int(sequencerIndex & 7)]
    case 0x3C6: return dac.mask
    case 0x3C7: return dac.state
    case 0x3C8: return dac.writeIndex
    case 0x3C9: return dac.readData()
    case 0x3CA: return featureControl
    case 0x3CC: return miscellaneousOutput
    case 0x3CE: return graphicsIndex
    case 0x3CF: return graphics[Int(graphicsIndex & 15)]
    case 0x3B4, 0x3D4: return crtcIndex
    case 0x3B5, 0x3D5: return readCRTC()
    default: return 0
    }
  }

  mutating func write(offset: UInt16, value: UInt8) {
    let port = 0x3B0 &+ offset
    guard decodes(port) else { return }
    switch port {
    case 0x3C0: writeAttribute(value)
    case 0x3C2: miscellaneousOutput = value & ~0x10
    case 0x3C4: sequencerIndex = value & 7
    case 0x3C5:
      let index = Int(sequencerIndex & 7)
      sequencer[index] = value & Self.sequencerMask[index]
    case 0x3C6: dac.mask = value
    case 0x3C7: dac.beginRead(at: value)
    case 0x3C8: dac.beginWrite(at: value)
    case 0x3C9: dac.writeData(value)
    case 0x3CE: graphicsIndex = value & 15
    case 0x3CF:
      let index = Int(graphicsIndex & 15)
      graphics[index] = value & Self.graphicsMask[index]
    case 0x3B4, 0x3D4: crtcIndex = value
    case 0x3B5, 0x3D5: writeCRTC(value)
    case 0x3BA, 0x3DA: featureControl = value & 0x10
    default: break
    }
  }

  /// Miscellaneous output bit 0 puts the CRTC at 3Dxh, else it is at 3Bxh.
  func decodes(_ port: UInt16) -> Bool {
    switch port {
    case 0x3B0...0x3BF: miscellaneousOutput & 1 == 0
    case 0x3D0...0x3DF: miscellaneousOutput & 1 != 0
    default: true
    }
  }

  private func readCRTC() -> UInt8 {
    switch crtcIndex {
    case 0...0x18: crtc[Int(crtcIndex)]
    // Two registers that the technical reference leaves out, but VGAs have.
    case 0x22: UInt8(truncatingIfNeeded: latch >> UInt32(graphics[Graphics.readMapSelect] & 3) * 8)
    case 0x24: attributeFlipFlop ? 0x80 : 0
    default: 0
    }
  }

  private mutating func writeCRTC(_ value: UInt8) {
    let index = Int(crtcIndex)
    guard index <= 0x18 else { return }
    let isProtected = crtc[CRTC.verticalRetraceEnd] & 0x80 != 0
    if isProtected && index <= CRTC.overflow {
      // Line compare bit 8 lives in the overflow register and stays writable.
      if index == CRTC.overflow {
        crtc[index] = crtc[index] & ~0x10 | value & 0x10
      }
      return
    }
    crtc[index] = value
  }

  private mutating func writeAttribute(_ value: UInt8) {
    defer { attributeFlipFlop.toggle() }
    guard attributeFlipFlop else {
      attributeIndex = value & 0x3F
      return
    }
    let index = Int(attributeIndex & 0x1F)
    switch index {
    case 0...0x0F: attribute[index] = value & 0x3F
    case Attribute.modeControl: attribute[index] = value & ~0x10
    case Attribute.overscan: attribute[index] = value
    case Attribute.colorPlaneEnable: attribute[index] = value & 0x3F
    case Attribute.pixelPanning, Attribute.colorSelect: attribute[index] = value & 0x0F
    default: break
    }
  }
}

/// Values put together from several registers.
extension VGARegisters {
  /// Lines on the screen, before rows are formed of them.
  var displayedLines: Int {
    let overflow = Int(crtc[CRTC.overflow])
    let end = Int(crtc[CRTC.verticalDisplayEnd]) | (overflow & 0x02) << 7 | (overflow & 0x40) << 3
    return end + 1
  }

  /// The last scan line before the address restarts at 0 (split screen).
  var lineCompare: Int {
    Int(crtc[CRTC.lineCompare]) | (Int(crtc[CRTC.overflow]) & 0x10) << 4
      | (Int(crtc[CRTC.maximumScanLine]) & 0x40) << 3
  }

  /// In units of four bytes, one of each plane.
  var startAddress: Int {
    Int(crtc[CRTC.startAddressHigh]) << 8 | Int(crtc[CRTC.startAddressLow])
  }

  var cursorLocation: Int {
    Int(crtc[CRTC.cursorLocationHigh]) << 8 | Int(crtc[CRTC.cursorLocationLow])
  }

  var isGraphicsMode: Bool { graphics[Graphics.miscellaneous] & 1 != 0 }

  /// The attribute controller shows the screen and the sequencer does not blank it.
  var isScreenOn: Bool {
    attributeIndex & 0x20 != 0 && sequencer[Sequencer.clockingMode] & 0x20 == 0
  }

  /// The 16 attribute registers through the DAC, as xrgb8888.
  func palette16() -> [UInt32] {
    let select = attribute[Attribute.colorSelect]
    let replacesBits4And5 = attribute[Attribute.modeControl] & 0x80 != 0
    return (0..<16).map { index in
      let register = attribute[index]
      let color =
        replacesBits4And5
        ? (select & 0x0F) << 4 | register & 0x0F : (select & 0x0C) << 4 | register & 0x3F
      return dac.color(color)
    }
  }
}
