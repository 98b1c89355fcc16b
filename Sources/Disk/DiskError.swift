import CarrelBase

/// Why an image cannot be used.
public struct DiskError: CarrelError {
  public enum Kind: Hashable, Sendable {
    case notFound
    case permissionDenied
    /// A directory, a device that is no disk, or an image of another format.
    case notAnImage
    /// Not a whole number of sectors, or nothing at all.
    case oddSize
    /// Another VMM has it open.
    case inUse
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
