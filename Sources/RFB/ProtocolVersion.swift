/// The three published versions of the RFB protocol (RFC 6143 section 7.1.1 and
/// appendix A). They differ in how security is agreed on and how refusal is told.
public enum ProtocolVersion: Int, Comparable, Sendable, CaseIterable {
  case v33 = 3
  case v37 = 7
  case v38 = 8

  public static func < (left: ProtocolVersion, right: ProtocolVersion) -> Bool {
    left.rawValue < right.rawValue
  }

  /// Bytes in a ProtocolVersion message.
  public static let messageLength = 12

  /// The message as this version announces itself.
  public var message: [UInt8] { Array("RFB 003.00\(rawValue)\n".utf8) }

  /// Reads a ProtocolVersion message; `nil` when it is none.
  ///
  /// Versions never published are taken as the next lower one that was, as
  /// appendix A asks: 3.5 is 3.3; what is above 3.8 (RealVNC's 4.1 and 5.0, Apple's
  /// 3.889) speaks 3.8 to a server that announced 3.8.
  public init?(message: some Collection<UInt8>) {
    guard message.count == Self.messageLength else { return nil }
    let bytes = Array(message)
    guard bytes[0..<4].elementsEqual("RFB ".utf8), bytes[7] == UInt8(ascii: "."),
      bytes[11] == UInt8(ascii: "\n"),
      let major = Self.number(bytes[4..<7]), let minor = Self.number(bytes[8..<11])
    else { return nil }
    switch (major, minor) {
    case (..<3, _), (3, ..<3): return nil
    case (3, ..<7): self = .v33
    case (3, 7): self = .v37
    default: self = .v38
    }
  }

  private static func number(_ digits: ArraySlice<UInt8>) -> Int? {
    var value = 0
    for digit in digits {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
      value = value * 10 + Int(digit - UInt8(ascii: "0"))
    }
    return value
  }
}
