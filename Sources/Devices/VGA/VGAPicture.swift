import DeviceModel

/// What the registers, taken together, put on the screen.
enum VGAPicture: Equatable {
  case blank
  case text(TextGeometry)
  case indexed(GraphicsGeometry)
  case linear(Scanout)

  init(registers: VGARegisters, vbe: BochsVBE, isBigEndian: Bool) {
    guard registers.isScreenOn else {
      self = .blank
      return
    }
    if vbe.isEnabled {
      self = Self.extended(vbe: vbe, registers: registers, isBigEndian: isBigEndian)
    } else if registers.isGraphicsMode {
      self = .indexed(GraphicsGeometry(registers))
    } else {
      let geometry = TextGeometry(registers)
      // In the middle of a mode switch; a screen of one cell helps nobody.
      self = geometry.columns * geometry.lines <= geometry.cellHeight ? .blank : .text(geometry)
    }
  }

  private static func extended(
    vbe: BochsVBE, registers: VGARegisters, isBigEndian: Bool
  ) -> VGAPicture {
    let format: PixelFormat? =
      switch vbe.depth {
      case 15: .xrgb1555
      case 16: .rgb565
      case 24: .rgb888
      case 32: .xrgb8888
      default: nil
      }
    if let format, !isBigEndian {
      return .linear(
        Scanout(
          source: .videoMemory, offset: vbe.startOffset, stride: vbe.stride,
          width: Int(vbe.width), height: Int(vbe.height), format: format))
    }
    let pixels: GraphicsGeometry.Pixels =
      switch vbe.depth {
      case 4: .planar(planeEnable: registers.attribute[Attribute.colorPlaneEnable])
      case 8: .packed
      default: .swapped(format ?? .xrgb8888)
      }
    return .indexed(GraphicsGeometry(vbe: vbe, pixels: pixels))
  }
}

/// A text mode: cells of a character and an attribute, drawn with a font.
struct TextGeometry: Equatable {
  var columns: Int
  /// 8, 9, or 16 where each dot of a character is doubled.
  var cellWidth: Int
  /// Scan lines of a character, 1 … 32, before double scan.
  var cellHeight: Int
  /// 2 with double scan, else 1.
  var scanRepeat: Int
  var lines: Int
  /// Cells from one row to the next.
  var pitch: Int
  var lineCompare: Int
  /// The first scan line of the first row (smooth scrolling).
  var presetRow: Int
  /// Dots by which the picture is moved left.
  var pan: Int
  /// Panning ends at the line compare.
  var panStopsAtSplit: Bool
  var startAddress: Int
  /// The cell that byte panning adds to the start.
  var bytePan: Int

  init(_ registers: VGARegisters) {
    let crtc = registers.crtc
    let clocking = registers.sequencer[Sequencer.clockingMode]
    columns = Int(crtc[CRTC.endHorizontalDisplay]) + 1
    cellWidth = clocking & 0x08 != 0 ? 16 : (clocking & 1 != 0 ? 8 : 9)
    cellHeight = Int(crtc[CRTC.maximumScanLine] & 0x1F) + 1
    scanRepeat = crtc[CRTC.maximumScanLine] & 0x80 != 0 ? 2 : 1
    lines = registers.displayedLines
    pitch = Int(crtc[CRTC.offset]) * 2
    lineCompare = registers.lineCompare
    presetRow = Int(crtc[CRTC.presetRowScan] & 0x1F)
    panStopsAtSplit = registers.attribute[Attribute.modeControl] & 0x20 != 0
    startAddress = registers.startAddress
    bytePan = Int(crtc[CRTC.presetRowScan] >> 5 & 3)
    let panning = Int(registers.attribute[Attribute.pixelPanning])
    switch cellWidth {
    case 9: pan = panning < 8 ? panning + 1 : 0
    case 8: pan = panning & 7
    default: pan = (panning & 7) * 2
    }
  }

  var width: Int { columns * cellWidth }
}

/// A graphics mode that is drawn into the rendered surface.
struct GraphicsGeometry: Equatable {
  enum Pixels: Equatable {
    /// One bit of each pixel in each of four planes.
    case planar(planeEnable: UInt8)
    /// Two bits a pixel: planes 0 and 2, then planes 1 and 3 (CGA).
    case interleaved(planeEnable: UInt8)
    /// A byte a pixel, each two dots wide (mode 13h).
    case packedDouble
    /// A byte a pixel.
    case packed
    /// True colour whose bytes the guest stores big-endian.
    case swapped(PixelFormat)
  }

  var pixels: Pixels
  /// 2 where each dot is doubled in width (sequencer "dot clock / 2"), else 1.
  var dotRepeat: Int
  var width: Int
  var lines: Int
  /// Byte offset of the first row.
  var start: Int
  /// Bytes from one row to the next.
  var stride: Int
  var lineCompare: Int
  /// Scan lines a row is shown on, before double scan.
  var rowHeight = 1
  /// 2 with double scan, else 1.
  var scanRepeat = 1
  var presetRow = 0
  /// CRTC mode control: bits 0 and 1 cleared bring back the CGA and Hercules
  /// memory layouts, bit 6 tells byte from word addresses.
  var modeControl: UInt8 = 0xE3
  var pan = 0
  var bytePan = 0
  var panStopsAtSplit = false

  init(_ registers: VGARegisters) {
    let crtc = registers.crtc
    let planeEnable = registers.attribute[Attribute.colorPlaneEnable]
    switch registers.graphics[Graphics.mode] >> 5 & 3 {
    case 0: pixels = .planar(planeEnable: planeEnable)
    case 1: pixels = .interleaved(planeEnable: planeEnable)
    default: pixels = .packedDouble
    }
    let halvesClock = registers.sequencer[Sequencer.clockingMode] & 0x08 != 0
    dotRepeat = halvesClock && pixels != .packedDouble ? 2 : 1
    width = (Int(crtc[CRTC.endHorizontalDisplay]) + 1) * 8 * dotRepeat
    lines = registers.displayedLines
    start = registers.startAddress * 4
    stride = Int(crtc[CRTC.offset]) * 8
    lineCompare = registers.lineCompare
    rowHeight = Int(crtc[CRTC.maximumScanLine] & 0x1F) + 1
    scanRepeat = crtc[CRTC.maximumScanLine] & 0x80 != 0 ? 2 : 1
    presetRow = Int(crtc[CRTC.presetRowScan] & 0x1F)
    modeControl = crtc[CRTC.modeControl]
    let panning = Int(registers.attribute[Attribute.pixelPanning])
    pan = panning < 8 ? panning * dotRepeat : 0
    bytePan = Int(crtc[CRTC.presetRowScan] >> 5 & 3) * 4
    panStopsAtSplit = registers.attribute[Attribute.modeControl] & 0x20 != 0
  }

  init(vbe: BochsVBE, pixels: Pixels) {
    self.pixels = pixels
    dotRepeat = 1
    width = Int(vbe.width)
    lines = Int(vbe.height)
    start = vbe.startOffset
    stride = vbe.stride
    lineCompare = .max
  }

  /// Bytes of VRAM that one row of `dots` dots takes.
  func byteCount(dots: Int) -> Int {
    switch pixels {
    case .planar, .interleaved: dots / dotRepeat / 2
    case .packedDouble: dots / 2
    case .packed: dots
    case .swapped(let format): dots * format.bytesPerPixel
    }
  }

  /// Where the scan line `row` of the row at byte `address` really lies.
  func address(_ address: Int, row: Int) -> Int {
    var address = address
    if modeControl & 1 == 0 {
      // Row scan bit 0 replaces address bit 13, which is a word address unless
      // bit 6 says otherwise.
      let bit = 1 << (14 + Int(modeControl >> 6 & 1))
      address = row & 1 != 0 ? address | bit : address & ~bit
    }
    if modeControl & 2 == 0 {
      address = row & 2 != 0 ? address | 0x8000 : address & ~0x8000
    }
    return address
  }
}
