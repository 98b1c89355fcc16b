import CarrelBase

/// Why a snapshot could not be made or opened.
public struct SnapshotError: CarrelError {
  public enum Kind: Hashable, Sendable {
    case notFound
    /// Another kind of file.
    case notASnapshot
    /// Cut short or altered.
    case damaged
    /// Of a newer format than this program knows.
    case tooNew
    /// Made from another snapshot than the one that is there.
    case wrongBase
    case noSpace
    case inputOutput
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
