import CarrelBase

/// Why the broker did not do what it was asked.
public struct BrokerError: CarrelError {
  public enum Kind: String, Hashable, Sendable {
    /// No such pool, user, desktop, session.
    case notFound
    /// A thing of that name is there already.
    case exists
    /// The request itself is wrong.
    case invalid
    /// Not in this state: in use, full, being deleted.
    case conflict
    /// The user may not.
    case forbidden
    /// The store did not take the decision; nothing was changed.
    case storage
    /// The host could not do it: a VMM that does not start or answer.
    case host
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
