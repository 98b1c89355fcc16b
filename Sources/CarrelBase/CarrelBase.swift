/// An error as every layer throws it: few matchable kinds, what was being done to
/// which object and what to do about it, and what lay beneath.
public protocol CarrelError: Error, CustomStringConvertible, Sendable {
  associatedtype Kind: Hashable, Sendable

  var kind: Kind { get }
  /// The object, the operation and the remedy, in one sentence or two.
  var context: String { get }
  var cause: (any Error)? { get }
}

extension CarrelError {
  public var description: String {
    guard let cause else { return context }
    return "\(context): \(cause)"
  }
}
