import DeviceModel

/// What comes of it when what a header says is done.
extension VirtioNetHeader {
  /// The frames that go on the wire; `nil` when the header does not fit the frame.
  package func frames(of frame: [UInt8]) -> [[UInt8]]? {
    guard let segmentation else { return nil }
    guard needsChecksum else { return segmentation == .whole ? [frame] : nil }
    guard let place = checksumPlace(in: frame) else { return nil }
    guard segmentation == .whole else {
      return TCPSegmentation(frame, segmentation, tcp: checksumStart, size: segmentSize)?
        .segments()
    }
    var finished = frame
    // The field holds the pseudo-header's sum, which thus is counted with the rest.
    let sum = InternetChecksum.finish(InternetChecksum.sum(frame[checksumStart...]))
    finished.putBig(sum == 0 ? 0xFFFF : sum, at: place)
    return [finished]
  }

  /// The same to be done by whoever gets the frame, said in terms that are checked to fit it,
  /// as they come from a guest; `nil` when they do not.
  ///
  /// - Parameter largest: of the frames that come of it.
  func request(for frame: [UInt8], largest: Int) -> VirtioNetHeader? {
    guard let segmentation else { return nil }
    guard needsChecksum else {
      return segmentation == .whole && frame.count <= largest ? VirtioNetHeader() : nil
    }
    guard checksumPlace(in: frame) != nil else { return nil }
    var request = VirtioNetHeader()
    (request.needsChecksum, request.segmentation) = (true, segmentation)
    (request.checksumStart, request.checksumOffset) = (checksumStart, checksumOffset)
    guard segmentation != .whole else { return frame.count <= largest ? request : nil }
    guard checksumOffset == TCPSegmentation.checksumOffset,
      let tcp = TCPSegmentation(frame, segmentation, tcp: checksumStart, size: segmentSize),
      min(tcp.headers + segmentSize, frame.count) <= largest
    else { return nil }
    (request.headerSize, request.segmentSize) = (tcp.headers, segmentSize)
    request.hasCongestion = hasCongestion
    return request
  }

  private func checksumPlace(in frame: [UInt8]) -> Int? {
    let place = checksumStart + checksumOffset
    return checksumStart >= EthernetFrame.headerSize && place + 2 <= frame.count ? place : nil
  }
}

enum EthernetFrame {
  static let headerSize = 14
  private static let tags: Set<UInt16> = [0x8100, 0x88A8]

  /// The type and where what it carries begins, behind VLAN tags.
  static func payload(of frame: [UInt8]) -> (type: UInt16, offset: Int)? {
    var offset = 12
    for _ in 0..<3 {
      guard let type = frame.big(at: offset) else { return nil }
      guard tags.contains(type) else { return (type, offset + 2) }
      offset += 4
    }
    return nil
  }

  /// The VLAN of a tagged frame.
  static func vlan(of frame: [UInt8]) -> Int? {
    guard frame.big(at: 12) == 0x8100, let tag = frame.big(at: 14) else { return nil }
    return Int(tag & 0xFFF)
  }
}

/// RFC 1071.
enum InternetChecksum {
  static func sum(_ bytes: ArraySlice<UInt8>, _ start: UInt64 = 0) -> UInt64 {
    var total = start
    var index = bytes.startIndex
    while index + 1 < bytes.endIndex {
      total &+= UInt64(bytes[index]) << 8 | UInt64(bytes[index + 1])
      index += 2
    }
    return index < bytes.endIndex ? total &+ UInt64(bytes[index]) << 8 : total
  }

  static func finish(_ sum: UInt64) -> UInt16 {
    var sum = sum
    while sum > 0xFFFF { sum = sum >> 16 &+ sum & 0xFFFF }
    return ~UInt16(truncatingIfNeeded: sum)
  }
}

/// A TCP segment larger than the wire takes, and those that are sent for it.
struct TCPSegmentation {
  /// A driver that asks for more, smaller ones is not obeyed: it would be a lot of work.
  private static let mostSegments = 512
  /// Of the field in TCP's header.
  static let checksumOffset = 16
  private static let tcpProtocol: UInt8 = 6
  private static let finAndPush: UInt8 = 0x09
  private static let reducedWindow: UInt8 = 0x80

  private let frame: [UInt8]
  private let isIPv6: Bool
  /// Where the headers begin, and the data.
  private let network: Int
  private let tcp: Int
  private let data: Int
  private let size: Int
  /// Bytes of all headers, which each segment has.
  var headers: Int { data }

  init?(_ frame: [UInt8], _ kind: VirtioNetHeader.Segmentation, tcp: Int, size: Int) {
    guard let (type, network) = EthernetFrame.payload(of: frame), size > 0 else { return nil }
    isIPv6 = kind == .tcp6
    guard type == (isIPv6 ? 0x86DD : 0x0800), network < frame.count,
      frame[network] >> 4 == (isIPv6 ? 6 : 4), tcp + 20 <= frame.count,
      isIPv6
        ? tcp >= network + 40
        : tcp == network + Int(frame[network] & 15) * 4 && tcp >= network + 20
          && frame[network + 9] == Self.tcpProtocol
    else { return nil }
    let data = tcp + Int(frame[tcp + 12] >> 4) * 4
    guard data >= tcp + 20, data <= frame.count,
      (frame.count - data + size - 1) / size <= Self.mostSegments
    else { return nil }
    (self.frame, self.network, self.tcp, self.data, self.size) = (frame, network, tcp, data, size)
  }

  func segments() -> [[UInt8]] {
    guard data < frame.count else { return [segment(data..<data)] }
    return stride(from: data, to: frame.count, by: size).map {
      segment($0..<min($0 + size, frame.count))
    }
  }

  private func segment(_ part: Range<Int>) -> [UInt8] {
    var bytes = Array(frame[..<data]) + frame[part]
    let isFirst = part.lowerBound == data
    let isLast = part.upperBound == frame.count
    if isIPv6 {
      bytes.putBig(UInt16(truncatingIfNeeded: bytes.count - network - 40), at: network + 4)
    } else {
      bytes.putBig(UInt16(truncatingIfNeeded: bytes.count - network), at: network + 2)
      let number = (part.lowerBound - data) / size
      let identification = frame.big(at: network + 4) ?? 0
      bytes.putBig(identification &+ UInt16(truncatingIfNeeded: number), at: network + 4)
      bytes.putBig(0 as UInt16, at: network + 10)
      bytes.putBig(
        InternetChecksum.finish(InternetChecksum.sum(bytes[network..<tcp])), at: network + 10)
    }
    let sequence = (0..<4).reduce(UInt32(0)) { $0 << 8 | UInt32(frame[tcp + 4 + $1]) }
    bytes.putBig(sequence &+ UInt32(truncatingIfNeeded: part.lowerBound - data), at: tcp + 4)
    if !isLast { bytes[tcp + 13] &= ~Self.finAndPush }
    if !isFirst { bytes[tcp + 13] &= ~Self.reducedWindow }
    bytes.putBig(0 as UInt16, at: tcp + Self.checksumOffset)
    bytes.putBig(
      InternetChecksum.finish(InternetChecksum.sum(bytes[tcp...], pseudoHeader(of: bytes))),
      at: tcp + Self.checksumOffset)
    return bytes
  }

  /// RFC 793, section 3.1, and RFC 8200, section 8.1.
  private func pseudoHeader(of bytes: [UInt8]) -> UInt64 {
    let addresses = isIPv6 ? network + 8..<network + 40 : network + 12..<network + 20
    return InternetChecksum.sum(bytes[addresses], 6 + UInt64(bytes.count - tcp))
  }
}

extension [UInt8] {
  /// A number in network byte order; `nil` beyond the end.
  func big(at offset: Int) -> UInt16? {
    guard offset >= 0, offset + 1 < count else { return nil }
    return UInt16(self[offset]) << 8 | UInt16(self[offset + 1])
  }

  /// Puts a number in network byte order; the caller stays within the array.
  mutating func putBig(_ value: some FixedWidthInteger, at offset: Int) {
    let bytes = value.bitWidth / 8
    for index in 0..<bytes {
      self[offset + index] = UInt8(truncatingIfNeeded: value >> ((bytes - 1 - index) * 8))
    }
  }
}
