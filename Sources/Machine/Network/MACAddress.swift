/// An Ethernet address.
public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
  public let bytes: [UInt8]

  /// Six pairs of hexadecimal digits with colons; not a group's address, nor all zeros.
  public init?(_ text: String) {
    let groups = text.split(separator: ":", omittingEmptySubsequences: false)
    let bytes = groups.compactMap { $0.utf8.count == 2 ? UInt8($0, radix: 16) : nil }
    guard groups.count == 6, bytes.count == 6, bytes[0] & 1 == 0, bytes != [0, 0, 0, 0, 0, 0]
    else { return nil }
    self.bytes = bytes
  }

  /// Locally administered, and the same whenever a machine of this UUID has a card of this
  /// number: five bytes of the FNV-1a hash of both.
  public static func derived(from uuid: MachineUUID, card: Int) -> MACAddress {
    let hash = (uuid.bytes + [UInt8(truncatingIfNeeded: card)])
      .reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    return MACAddress(
      bytes: [0x52] + (0..<5).map { UInt8(truncatingIfNeeded: (hash ^ hash >> 40) >> ($0 * 8)) })
  }

  private init(bytes: [UInt8]) { self.bytes = bytes }

  public var description: String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
  }
}
