/// A name that is also a file name, a key and a word on a command line.
public protocol Identifier: RawRepresentable, Hashable, Comparable, Codable, Sendable,
  CustomStringConvertible
where RawValue == String {
  /// What such a thing is called in messages: "pool", "user".
  static var noun: String { get }

  init(rawValue: String)
}

extension Identifier {
  /// The longest accepted name: paths of Unix sockets hold 107 bytes in all.
  public static var longest: Int { 32 }

  public var description: String { rawValue }

  public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

  /// A name somebody typed. Letters, digits, `-`, `_` and `.`; the first a letter or digit.
  public init(checking text: String) throws(BrokerError) {
    guard let first = text.utf8.first else {
      throw BrokerError(.invalid, "a \(Self.noun) name is empty: give it a name")
    }
    guard text.utf8.count <= Self.longest else {
      throw BrokerError(
        .invalid,
        "\(Self.noun) name '\(text)' is longer than \(Self.longest) characters: shorten it")
    }
    guard isLetterOrDigit(first), text.utf8.allSatisfy(isNameByte) else {
      throw BrokerError(
        .invalid,
        "\(Self.noun) name '\(text)' is not usable: use letters, digits, '-', '_' and '.', "
          + "and begin with a letter or digit")
    }
    self.init(rawValue: text)
  }
}

private func isLetterOrDigit(_ byte: UInt8) -> Bool {
  switch byte {
  case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
    UInt8(ascii: "0")...UInt8(ascii: "9"):
    true
  default: false
  }
}

private func isNameByte(_ byte: UInt8) -> Bool {
  isLetterOrDigit(byte) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_")
    || byte == UInt8(ascii: ".")
}

/// A pool of desktops made from one image.
public struct PoolName: Identifier {
  public static var noun: String { "pool" }
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
}

/// A person who may log in.
public struct UserName: Identifier {
  public static var noun: String { "user" }
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
}

/// An image in the site's library.
public struct ImageName: Identifier {
  public static var noun: String { "image" }
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
}

/// A snapshot of a desktop, such as `before-upgrade`.
public struct SnapshotName: Identifier {
  public static var noun: String { "snapshot" }
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
}

/// One desktop: its pool's name, a dash and a number that is never used twice in the pool.
public struct DesktopID: Identifier {
  public static var noun: String { "desktop" }
  public static var longest: Int { PoolName.longest + 21 }
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }

  public init(pool: PoolName, number: UInt64) {
    rawValue = "\(pool.rawValue)-\(number)"
  }

  /// The pool; `nil` for a name that was not made of one.
  public var pool: PoolName? {
    rawValue.lastIndex(of: "-").flatMap { try? PoolName(checking: String(rawValue[..<$0])) }
  }

  /// Whether it is made as names of desktops are.
  public var isNumbered: Bool { pool != nil && UInt64(number) != nil }

  /// The number, as it stands in the name.
  public var number: Substring { rawValue.split(separator: "-").last ?? "" }
}

/// One stay of one user on one desktop, over any number of viewer connections.
public struct SessionID: Identifier {
  public static var noun: String { "session" }
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
}

/// One ticket, named without giving its secret away.
public struct TicketID: Identifier {
  public static var noun: String { "ticket" }
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
}

/// One viewer connection. Unique while this `carreld` runs; never stored.
public struct ConnectionID: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let value: UInt64

  public init(_ value: UInt64) { self.value = value }

  public var description: String { "viewer \(value)" }
  public static func < (left: Self, right: Self) -> Bool { left.value < right.value }
}

/// UTC in milliseconds since 1970.
public struct Timestamp: Hashable, Comparable, Codable, Sendable {
  public let milliseconds: Int64

  public init(milliseconds: Int64) { self.milliseconds = milliseconds }

  public init(from decoder: any Decoder) throws {
    milliseconds = try decoder.singleValueContainer().decode(Int64.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(milliseconds)
  }

  public static func < (left: Self, right: Self) -> Bool {
    left.milliseconds < right.milliseconds
  }

  /// Later by `seconds`, at most the end of time.
  public func adding(seconds: Int) -> Timestamp {
    let (span, tooLong) = seconds.multipliedReportingOverflow(by: 1000)
    return tooLong ? Timestamp(milliseconds: .max) : adding(milliseconds: span)
  }

  public func adding(milliseconds span: Int) -> Timestamp {
    let (sum, tooLate) = milliseconds.addingReportingOverflow(Int64(span))
    return Timestamp(milliseconds: tooLate ? .max : sum)
  }
}
