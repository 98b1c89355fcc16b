/// A universally unique identifier (RFC 9562).
public struct MachineUUID: Hashable, Sendable, CustomStringConvertible {
  /// In the order in which they are written.
  public let bytes: [UInt8]

  /// - Parameter bytes: 16; what lacks is 0.
  private init(bytes: [UInt8]) {
    self.bytes = Array((bytes + Array(repeating: 0, count: 16)).prefix(16))
  }

  /// - Parameter bytes: 16.
  public init?(bytes: some Collection<UInt8>) {
    guard bytes.count == 16 else { return nil }
    self.bytes = Array(bytes)
  }

  /// 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
  public init?(_ text: String) {
    let groups = text.split(separator: "-", omittingEmptySubsequences: false)
    guard groups.map(\.utf8.count) == [8, 4, 4, 4, 12] else { return nil }
    var bytes: [UInt8] = []
    for group in groups {
      guard group.utf8.allSatisfy(Self.isDigit) else { return nil }
      var rest = group
      while !rest.isEmpty {
        guard let byte = UInt8(rest.prefix(2), radix: 16) else { return nil }
        bytes.append(byte)
        rest = rest.dropFirst(2)
      }
    }
    self.init(bytes: bytes)
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte & 0xDF)
  }

  /// Version 4.
  public static func random() -> MachineUUID {
    var generator = SystemRandomNumberGenerator()
    return MachineUUID(
      value: UInt128(generator.next()) << 64 | UInt128(generator.next()), version: 4)
  }

  /// The same for the same name, on every host and in every release: version 8, of the
  /// name's FNV-1a hash of 128 bits.
  public static func derived(from name: String) -> MachineUUID {
    let prime = UInt128(0x0100_0000) << 64 | 0x013B
    let basis = UInt128(0x6C62_272E_07BB_0142) << 64 | 0x62B8_2175_6295_C58D
    let hash = name.utf8.reduce(basis) { ($0 ^ UInt128($1)) &* prime }
    return MachineUUID(value: hash, version: 8)
  }

  private init(value: UInt128, version: UInt8) {
    var bytes = (0..<16).map { UInt8(truncatingIfNeeded: value >> (120 - $0 * 8)) }
    bytes[6] = bytes[6] & 0x0F | version << 4
    bytes[8] = bytes[8] & 0x3F | 0x80
    self.init(bytes: bytes)
  }

  public var description: String {
    var text = ""
    for (index, byte) in bytes.enumerated() {
      if [4, 6, 8, 10].contains(index) { text += "-" }
      let digits = String(byte, radix: 16)
      text += digits.count == 1 ? "0" + digits : digits
    }
    return text
  }
}
