/// The Bochs VBE extension ("DISPI"): a second, simple way to set a mode, through
/// an index and a data register of 16 bits.
package struct BochsVBE: Codable, Sendable, Equatable {
  enum Index {
    static let id: UInt16 = 0
    static let xResolution: UInt16 = 1
    static let yResolution: UInt16 = 2
    static let bitsPerPixel: UInt16 = 3
    static let enable: UInt16 = 4
    static let bank: UInt16 = 5
    static let virtualWidth: UInt16 = 6
    static let virtualHeight: UInt16 = 7
    static let xOffset: UInt16 = 8
    static let yOffset: UInt16 = 9
    static let videoMemory64K: UInt16 = 10
  }

  /// Bits of the enable register.
  enum Enable {
    static let enabled: UInt16 = 0x01
    static let getCapabilities: UInt16 = 0x02
    static let dac8Bits: UInt16 = 0x20
    static let linearFrameBuffer: UInt16 = 0x40
    static let noClearMemory: UInt16 = 0x80
  }

  static let maximumWidth: UInt16 = 16000
  static let maximumHeight: UInt16 = 12000
  static let maximumDepth: UInt16 = 32

  /// The register that the data port reaches.
  var index: UInt16 = 0
  private(set) var id: UInt16 = 0xB0C5
  private(set) var width: UInt16 = 0
  private(set) var height: UInt16 = 0
  private(set) var depth: UInt16 = 0
  private(set) var enable: UInt16 = 0
  private(set) var bank: UInt16 = 0
  private(set) var virtualWidth: UInt16 = 0
  private(set) var virtualHeight: UInt16 = 0
  private(set) var xOffset: UInt16 = 0
  private(set) var yOffset: UInt16 = 0

  package init() {}

  var isEnabled: Bool { enable & Enable.enabled != 0 }
  var isPlanar: Bool { depth == 4 }

  /// Bytes from one row to the next.
  var stride: Int { Int(virtualWidth) * bitsStored / 8 }

  /// Byte offset of the first pixel shown, a multiple of 4.
  var startOffset: Int {
    (Int(xOffset) * bitsStored / 8 + Int(yOffset) * stride) & ~3
  }

  private var bitsStored: Int { depth == 15 ? 16 : Int(depth) }

  /// What a write asks of the rest of the adapter.
  enum Effect { case none, modeChanged, modeSet(clearBytes: Int), disabled }

  func read(_ register: UInt16, videoMemorySize: Int) -> UInt16 {
    let showsCapabilities = enable & Enable.getCapabilities != 0
    switch register {
    case Index.id: return id
    case Index.xResolution: return showsCapabilities ? Self.maximumWidth : width
    case Index.yResolution: return showsCapabilities ? Self.maximumHeight : height
    case Index.bitsPerPixel: return showsCapabilities ? Self.maximumDepth : depth
    case Index.enable: return enable
    case Index.bank: return bank
    case Index.virtualWidth: return virtualWidth
    case Index.virtualHeight: return virtualHeight
    case Index.xOffset: return xOffset
    case Index.yOffset: return yOffset
    case Index.videoMemory64K: return UInt16(clamping: videoMemorySize >> 16)
    default: return 0
    }
  }

  mutating func write(_ register: UInt16, value: UInt16, videoMemorySize: Int) -> Effect {
    switch register {
    case Index.id:
      if (0xB0C0...0xB0C5).contains(value) { id = value }
      return .none
    case Index.xResolution: width = value
    case Index.yResolution: height = value
    case Index.bitsPerPixel: depth = value
    case Index.virtualWidth: virtualWidth = value
    case Index.xOffset: xOffset = value
    case Index.yOffset: yOffset = value
    case Index.bank:
      // A bank is 64 KiB of CPU addresses: 256 KiB of memory when planar.
      let banks = videoMemorySize >> (isPlanar ? 18 : 16)
      bank = value & UInt16(clamping: banks - 1)
      return .none
    case Index.enable: return writeEnable(value, videoMemorySize: videoMemorySize)
    default: return .none
    }
    guard isEnabled else { return .none }
    makeValid(videoMemorySize: videoMemorySize)
    return .modeChanged
  }

  private mutating func writeEnable(_ value: UInt16, videoMemorySize: Int) -> Effect {
    let wasEnabled = isEnabled
    enable = value
    guard isEnabled && !wasEnabled else {
      bank = 0
      return isEnabled ? .none : .disabled
    }
    virtualWidth = 0
    xOffset = 0
    yOffset = 0
    makeValid(videoMemorySize: videoMemorySize)
    let clears = value & Enable.noClearMemory == 0
    return .modeSet(clearBytes: clears ? Int(height) * stride : 0)
  }

  /// Moves every register to the nearest value that the memory allows: the
  /// interface has no way to report an error.
  mutating func makeValid(videoMemorySize: Int) {
    if ![4, 8, 15, 16, 24, 32].contains(depth) { depth = 8 }
    width = min(max(width & ~7, 8), Self.maximumWidth)
    virtualWidth = max(min(virtualWidth & ~7, Self.maximumWidth), width)
    let rows = videoMemorySize / stride
    height = min(max(height, 1), Self.maximumHeight, UInt16(clamping: rows))
    virtualHeight = UInt16(clamping: rows)
    xOffset = min(xOffset, Self.maximumWidth)
    yOffset = min(yOffset, Self.maximumHeight)
    if !fits(videoMemorySize) { yOffset = 0 }
    if !fits(videoMemorySize) { xOffset = 0 }
  }

  private func fits(_ videoMemorySize: Int) -> Bool {
    Int(xOffset) * bitsStored / 8 + (Int(yOffset) + Int(height)) * stride <= videoMemorySize
  }
}
