import DeviceModel

/// One end of a TCP connection over IPv4 (RFC 9293), as far as a peer on the same wire that
/// loses nothing needs it, which leaves checksums and segments to its card.
struct TestStream {
  typealias End = (hardware: [UInt8], address: [UInt8], port: UInt16)

  private static let largestSegment: UInt16 = 1460

  private enum Flag {
    static let synchronize: UInt8 = 0x02
    static let push: UInt8 = 0x08
    static let acknowledge: UInt8 = 0x10
  }

  private let source: End
  private let target: End
  private var sequence: UInt32 = 1000
  private var expected: UInt32 = 0
  private(set) var received: [UInt8] = []

  init(from source: End, to target: End) {
    (self.source, self.target) = (source, target)
  }

  /// The segment that opens the connection, behind a virtio_net_hdr, as all of them.
  mutating func opening() -> [UInt8] {
    // Maximum segment size.
    defer { sequence &+= 1 }
    return frame(Flag.synchronize, options: [2, 4] + Self.big(Self.largestSegment), [])
  }

  /// Data, however much; without any, an acknowledgement.
  mutating func segment(_ data: [UInt8]) -> [UInt8] {
    defer { sequence &+= UInt32(data.count) }
    return frame(data.isEmpty ? Flag.acknowledge : Flag.acknowledge | Flag.push, options: [], data)
  }

  private func frame(_ flags: UInt8, options: [UInt8], _ data: [UInt8]) -> [UInt8] {
    let length = 20 + options.count + data.count
    var network: [UInt8] =
      [0x45, 0] + Self.big(UInt16(20 + length)) + [0, 1, 0x40, 0, 64, 6, 0, 0]
      + source.address + target.address
    network.replaceSubrange(10..<12, with: Self.big(~Self.sum(network)))
    // The checksum field has the pseudo-header's sum: the card is to finish it.
    let pseudo = Self.sum(source.address + target.address + [0, 6] + Self.big(UInt16(length)))
    let transport: [UInt8] =
      Self.big(source.port) + Self.big(target.port) + Self.big(sequence) + Self.big(expected)
      + [UInt8(20 + options.count) << 2, flags, 0xFF, 0xFF] + Self.big(pseudo) + [0, 0] + options
    let isLarge = data.count > Int(Self.largestSegment)
    let headers = UInt16(34 + transport.count)
    // NEEDS_CSUM; TCPV4 where it is to be cut.
    let card: [UInt8] =
      [1, isLarge ? 1 : 0] + Self.little(headers)
      + Self.little(isLarge ? Self.largestSegment : 0) + Self.little(34) + Self.little(16) + [0, 0]
    return card + target.hardware + source.hardware + [8, 0] + network + transport + data
  }

  /// Whether a frame is the peer's next segment, with checksums that are right, or left out as
  /// its header says.
  func isAnswer(_ frame: NetworkFrame) -> Bool {
    let bytes = frame.bytes
    guard bytes.count >= 54, Array(bytes[12..<14]) == [8, 0], bytes[14] == 0x45, bytes[23] == 6,
      Array(bytes[26..<34]) == target.address + source.address,
      Array(bytes[34..<38]) == Self.big(target.port) + Self.big(source.port)
    else { return false }
    let end = 14 + Int(bytes[16]) << 8 + Int(bytes[17])
    guard end <= bytes.count else { return false }
    let segment = Array(bytes[34..<end])
    let pseudo =
      target.address + source.address + [0, 6] + Self.big(UInt16(segment.count))
    guard Self.sum(Array(bytes[14..<34])) == 0xFFFF else { return false }
    if frame.header.needsChecksum {
      guard frame.header.checksumStart == 34, frame.header.checksumOffset == 16,
        Array(segment[16..<18]) == Self.big(Self.sum(pseudo))
      else { return false }
    } else if Self.sum(pseudo + segment) != 0xFFFF {
      return false
    }
    let isOpening = segment[13] & Flag.synchronize != 0
    return isOpening ? expected == 0 : Self.number(segment[4..<8]) == expected
  }

  /// Takes a frame that `isAnswer`.
  mutating func take(_ frame: NetworkFrame) {
    let bytes = frame.bytes
    let end = 14 + Int(bytes[16]) << 8 + Int(bytes[17])
    let data = bytes[(34 + Int(bytes[46] >> 4) * 4)..<end]
    let opens = bytes[47] & Flag.synchronize != 0
    expected = Self.number(bytes[38..<42]) &+ UInt32(data.count) &+ (opens ? 1 : 0)
    received += data
  }

  /// RFC 1071, not inverted.
  private static func sum(_ bytes: [UInt8]) -> UInt16 {
    var total: UInt32 = 0
    for (index, byte) in bytes.enumerated() {
      total += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte)
    }
    while total > 0xFFFF { total = total >> 16 + total & 0xFFFF }
    return UInt16(total)
  }

  private static func number(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    bytes.reduce(0) { $0 << 8 | UInt32($1) }
  }

  private static func big(_ value: some FixedWidthInteger) -> [UInt8] {
    (1...value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (value.bitWidth - $0 * 8)) }
  }

  private static func little(_ value: UInt16) -> [UInt8] { big(value).reversed() }
}
