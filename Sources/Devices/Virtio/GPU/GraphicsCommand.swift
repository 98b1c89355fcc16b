import DeviceModel

/// Requests and answers of the graphics card (VIRTIO 1.2, section 5.7.6.7).
enum GraphicsCommand {
  static let getDisplayInfo: UInt32 = 0x0100
  static let resourceCreate2D: UInt32 = 0x0101
  static let resourceUnref: UInt32 = 0x0102
  static let setScanout: UInt32 = 0x0103
  static let resourceFlush: UInt32 = 0x0104
  static let transferToHost2D: UInt32 = 0x0105
  static let resourceAttachBacking: UInt32 = 0x0106
  static let resourceDetachBacking: UInt32 = 0x0107
  static let getEDID: UInt32 = 0x010A
  static let updateCursor: UInt32 = 0x0300
  static let moveCursor: UInt32 = 0x0301

  /// The longest of them, but for what follows resourceAttachBacking.
  static let longest = 56
  static let headerSize = 24
  /// VIRTIO_GPU_FLAG_FENCE.
  static let fence: UInt32 = 1
}

/// What the card answers.
enum GraphicsAnswer {
  case done
  case displayInfo([UInt8])
  case edid([UInt8])
  case unspecified
  case outOfMemory
  case invalidScanout
  case invalidResource
  case invalidParameter

  private var type: UInt32 {
    switch self {
    case .done: 0x1100
    case .displayInfo: 0x1101
    case .edid: 0x1104
    case .unspecified: 0x1200
    case .outOfMemory: 0x1201
    case .invalidScanout: 0x1202
    case .invalidResource: 0x1203
    case .invalidParameter: 0x1205
    }
  }

  private var body: [UInt8] {
    switch self {
    case .displayInfo(let bytes), .edid(let bytes): bytes
    default: []
    }
  }

  /// The answer to `request`, whose fence it carries.
  func bytes(to request: GraphicsRequest) -> [UInt8] {
    let isFenced = request.flags & GraphicsCommand.fence != 0
    return LittleEndian.bytes(type) + LittleEndian.bytes(isFenced ? GraphicsCommand.fence : 0)
      + LittleEndian.bytes(isFenced ? request.fence : 0)
      + LittleEndian.bytes(isFenced ? request.context : 0) + [0, 0, 0, 0] + body
  }
}

/// struct virtio_gpu_ctrl_hdr, and the fields after it.
struct GraphicsRequest {
  private let bytes: [UInt8]

  /// - Parameter bytes: at least a header.
  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var type: UInt32 { LittleEndian.number(bytes, at: 0, UInt32.self) }
  var flags: UInt32 { LittleEndian.number(bytes, at: 4, UInt32.self) }
  var fence: UInt64 { LittleEndian.number(bytes, at: 8, UInt64.self) }
  var context: UInt32 { LittleEndian.number(bytes, at: 16, UInt32.self) }

  /// Whether so many bytes follow the header.
  func has(_ count: Int) -> Bool { bytes.count >= GraphicsCommand.headerSize + count }

  /// The 32-bit field so many bytes after the header.
  func word(_ offset: Int) -> UInt32 {
    LittleEndian.number(bytes, at: GraphicsCommand.headerSize + offset, UInt32.self)
  }

  func long(_ offset: Int) -> UInt64 {
    LittleEndian.number(bytes, at: GraphicsCommand.headerSize + offset, UInt64.self)
  }

  /// struct virtio_gpu_rect, the first field of those that have one.
  var rect: Rect {
    Rect(x: Int(word(0)), y: Int(word(4)), width: Int(word(8)), height: Int(word(12)))
  }
}
