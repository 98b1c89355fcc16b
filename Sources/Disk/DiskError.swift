import CarrelBase
import LinuxSystem

/// Why an image cannot be used, or a request to it failed.
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
    /// Its own tables contradict each other or the format.
    case corrupt
    /// It needs what is not done here.
    case unsupported
    /// What it is based on is missing, or not allowed.
    case backing
    case noSpace
    case readOnly
    case outOfRange
    case alreadyExists
    /// Limits that cannot be, or contradict each other.
    case limits
  }

  public let kind: Kind
  public let context: String
  public let cause: (any Error)?

  public init(kind: Kind, context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }

  /// For a system call on an image.
  init(image path: String, _ operation: String, _ error: SystemError) {
    let kind: Kind =
      switch error.kind {
      case .noSpace: .noSpace
      case .notFound: .notFound
      case .permissionDenied: .permissionDenied
      case .alreadyExists: .alreadyExists
      default: .inputOutput
      }
    self.init(kind: kind, context: "image \(path): \(operation) failed", cause: error)
  }
}
