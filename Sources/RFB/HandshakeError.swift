import CarrelBase

/// Why a handshake ended before a session began.
public struct HandshakeError: CarrelError, Hashable {
  public enum Kind: Hashable, Sendable {
    /// What came in is not RFB.
    case garbage
    /// More came in than any handshake needs.
    case oversized
    /// The deadline passed.
    case timedOut
    /// No version, security type or subtype that both sides have.
    case nothingInCommon
    /// The credentials, or the login, were refused.
    case refused
  }

  public let kind: Kind
  public let context: String
  public var cause: (any Error)? { nil }

  public init(_ kind: Kind, _ context: String) {
    self.kind = kind
    self.context = context
  }
}
