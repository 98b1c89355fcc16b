import CarrelBase

/// Why a password or certificate could not be made or read.
public struct IdentityError: CarrelError {
  public enum Kind: Hashable, Sendable {
    case unusablePassword
    /// The file is no certificate or key, or they do not belong together.
    case unusableCertificate
    /// The disk did not take it, or gave it back.
    case storage
  }

  public let kind: Kind
  public let context: String
  public let cause: (any Error)?

  public init(_ kind: Kind, _ context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }
}
