/// The wire behind a network card: Ethernet frames from the destination address on,
/// without the check sequence.
///
/// Everything happens with the device lock held; nothing blocks.
public protocol NetworkBackend: AnyObject {
  /// Takes a frame from the guest; one that finds no room is lost, as on a wire.
  func send(_ frame: NetworkFrame)

  /// Called with each frame for the guest; `false` when the card has no buffer for it now
  /// but may soon: the frame is kept, and `hasRoom` tells when to offer it again.
  var onReceive: ((NetworkFrame) -> Bool)? { get set }

  /// The card, which refused a frame, may have room again.
  func hasRoom()

  /// Whether there is something at the other end.
  var isConnected: Bool { get }

  /// Called after `isConnected` changed.
  var onConnectionChange: (() -> Void)? { get set }

  /// Whether it finishes frames itself that the card sends with something left to do, and
  /// has such frames for a card that `accept`s them. Does not change.
  var takesUnfinished: Bool { get }

  /// Says what may be left undone in frames for the card; nothing at first. Frames that
  /// were on their way may still be as they could be before.
  func accept(_ offloads: NetworkOffloads)

  /// How many queues it has. With more than one, it knows itself which of those in use a
  /// frame for the guest goes to: the one on which its flow was last sent. Does not change.
  var queues: Int { get }

  /// Uses the first so many queues, at least one and at most `queues`; all of them at first.
  ///
  /// - Returns: whether it does.
  func use(queues: Int) -> Bool
}

/// A wire with one queue that takes nothing but complete frames.
extension NetworkBackend {
  public var takesUnfinished: Bool { false }
  public func accept(_ offloads: NetworkOffloads) {}
  public var queues: Int { 1 }
  public func use(queues: Int) -> Bool { true }
}

/// What may be left undone in frames for a network card.
public struct NetworkOffloads: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// The checksum of TCP or UDP; all others need this one, too.
  public static let checksum = NetworkOffloads(rawValue: 1 << 0)
  /// Cutting TCP over IPv4 into segments that fit the wire.
  public static let tcp4 = NetworkOffloads(rawValue: 1 << 1)
  /// The same for IPv6.
  public static let tcp6 = NetworkOffloads(rawValue: 1 << 2)
  /// The same for segments with TCP's CWR flag (RFC 3168), which only the first one keeps.
  public static let congestion = NetworkOffloads(rawValue: 1 << 3)
}

/// A frame between a network card and its wire.
public struct NetworkFrame: Sendable {
  /// From the destination address on, without the check sequence.
  public var bytes: [UInt8]
  /// What is left to do; nothing on a wire that takes only complete frames.
  public var header: VirtioNetHeader
  /// Of the queues in use, the one it is on.
  public var queue: Int

  public init(_ bytes: [UInt8], header: VirtioNetHeader = VirtioNetHeader(), queue: Int = 0) {
    self.bytes = bytes
    self.header = header
    self.queue = queue
  }
}

/// What is left to do to a frame: struct virtio_net_hdr (VIRTIO 1.2, section 5.1.6), which
/// TAP interfaces of Linux speak, too.
public struct VirtioNetHeader: Equatable, Sendable {
  public static let size = 12

  private enum Flag {
    static let needsChecksum: UInt8 = 1
    static let isValid: UInt8 = 2
  }

  /// `gso_type`, without the ECN bit.
  public enum Segmentation: UInt8, Sendable {
    case whole = 0
    case tcp4 = 1
    case tcp6 = 4
  }

  private static let ecn: UInt8 = 0x80

  public var needsChecksum = false
  /// Whoever made the frame knows that its checksum is right.
  public var isValid = false
  /// `nil` when it is of a kind that is not known.
  public var segmentation: Segmentation? = .whole
  /// The large segment has TCP's CWR flag.
  public var hasCongestion = false
  /// `hdr_len`, a hint where the data begins.
  public var headerSize = 0
  public var segmentSize = 0
  public var checksumStart = 0
  public var checksumOffset = 0

  /// That of a complete frame.
  public init() {}

  /// - Parameter bytes: the `size` bytes of the header; what is missing counts as 0.
  public init(_ bytes: [UInt8]) {
    func byte(_ offset: Int) -> UInt8 { offset < bytes.count ? bytes[offset] : 0 }
    func half(_ offset: Int) -> Int { Int(byte(offset)) | Int(byte(offset + 1)) << 8 }
    needsChecksum = byte(0) & Flag.needsChecksum != 0
    isValid = byte(0) & Flag.isValid != 0
    segmentation = Segmentation(rawValue: byte(1) & ~Self.ecn)
    hasCongestion = byte(1) & Self.ecn != 0
    headerSize = half(2)
    segmentSize = half(4)
    checksumStart = half(6)
    checksumOffset = half(8)
  }

  /// - Parameter buffers: how many the frame is in, `num_buffers`.
  public func bytes(buffers: Int = 0) -> [UInt8] {
    func low(_ value: Int) -> UInt8 { UInt8(truncatingIfNeeded: value) }
    func high(_ value: Int) -> UInt8 { UInt8(truncatingIfNeeded: value >> 8) }
    return [
      (needsChecksum ? Flag.needsChecksum : 0) | (isValid ? Flag.isValid : 0),
      (segmentation?.rawValue ?? 0) | (hasCongestion ? Self.ecn : 0),
      low(headerSize), high(headerSize), low(segmentSize), high(segmentSize),
      low(checksumStart), high(checksumStart), low(checksumOffset), high(checksumOffset),
      low(buffers), high(buffers),
    ]
  }
}
