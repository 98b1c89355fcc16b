import CarrelBase

/// Why the gateway does not start, or cannot serve a viewer.
public struct GatewayError: CarrelError {
  public enum Kind: Hashable, Sendable {
    /// The port is taken or not permitted, or the address is not this host's.
    case address
    /// The certificate or key does not load.
    case certificate
    /// The noVNC files are missing.
    case site
    /// The display process did not start or does not greet.
    case display
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
