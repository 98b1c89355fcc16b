import CarrelBase

/// Why carreld does not start.
struct DaemonError: CarrelError {
  enum Kind: Hashable, Sendable { case directory, program, certificate }

  let kind: Kind
  let context: String
  let cause: (any Error)?

  init(_ kind: Kind, _ context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }
}
