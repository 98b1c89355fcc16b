import CarrelBase

/// Why a saved state could not be written or read.
public struct StateError: CarrelError {
  public enum Kind: Hashable, Sendable {
    /// The bytes are not a saved state, or were cut short or altered.
    case damaged
    /// The bytes were written by a newer format than this program knows.
    case tooNew
    /// The bytes are sound but do not fit the type that was asked for.
    case mismatch
    /// The value holds something that has no representation in a saved state.
    case unsupported
  }

  public let kind: Kind
  public let context: String
  public let cause: (any Error)?

  public init(kind: Kind, context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }
}
