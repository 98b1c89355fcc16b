import CarrelBase

/// What is wrong with a configuration file, and where.
public struct ConfigurationError: CarrelError {
  public enum Kind: Hashable, Sendable {
    case unreadable, syntax, unknownKey, invalidValue
  }

  public let kind: Kind
  public let file: String
  public let line: Int?
  /// What was probably meant.
  public let suggestion: String?
  public let context: String
  public let cause: (any Error)?

  init(
    _ kind: Kind, file: String, line: Int?, _ text: String, suggestion: String? = nil,
    cause: (any Error)? = nil
  ) {
    self.kind = kind
    self.file = file
    self.line = line
    self.suggestion = suggestion
    let place = line.map { "\(file):\($0)" } ?? file
    context = "\(place): \(text)" + (suggestion.map { ": did you mean '\($0)'?" } ?? "")
    self.cause = cause
  }
}
