import CarrelBase

/// Why a machine could not be built or did not do what was asked.
public struct MachineError: CarrelError {
  public enum Kind: Hashable, Sendable {
    /// The configuration asks for something that cannot be.
    case configuration
    /// A file that the machine starts from is missing or not what it should be.
    case image
    /// The host refused memory, a device or a descriptor.
    case host
    /// The machine is not in a state in which this can be done.
    case state
  }

  public let kind: Kind
  public let problem: String
  /// What to do about it, where the problem's text does not say it.
  public let remedy: String?
  public let cause: (any Error)?

  public init(
    _ kind: Kind, _ problem: String, remedy: String? = nil, cause: (any Error)? = nil
  ) {
    self.kind = kind
    self.problem = problem
    self.remedy = remedy
    self.cause = cause
  }

  public var context: String { remedy.map { "\(problem); \($0)" } ?? problem }
}

/// `value` in hexadecimal with its prefix, for messages.
func hexadecimal(_ value: some BinaryInteger) -> String {
  "0x" + String(value, radix: 16)
}
