/// The cryptography of logins. Implemented by `Identity`; holds no state.
///
/// May be called from any task. `makeVerifier` and `verify` cost tens of
/// milliseconds of CPU by design and must not block the caller's executor.
public protocol Authenticator: Sendable {
  /// A salted scrypt hash of a new password, with its parameters, as one line of
  /// printable text.
  func makeVerifier(of password: [UInt8]) async throws -> String

  /// Whether `password` made `verifier`. Compares in constant time; with `nil`
  /// (unknown user) does the same work and returns false.
  func verify(_ password: [UInt8], against verifier: String?) async -> Bool

  /// A fresh secret of 8 characters from an alphabet without look-alikes.
  func makeTicketSecret() throws -> String

  /// Whether `secret` as VncAuth password turns `challenge` into `response`
  /// (both 16 bytes, else false). Constant time.
  func ticket(_ secret: String, answers challenge: [UInt8], with response: [UInt8]) -> Bool
}

/// Time as the broker sees it. Tests move it by hand.
public protocol BrokerClock: Sendable {
  var now: Timestamp { get }

  /// Returns at `deadline` or when the task is cancelled.
  func sleep(until deadline: Timestamp) async
}

/// Places where a test ends the process, named like `store.commit.before`. Called
/// at every store write and every spawn step; does nothing in production.
public struct Failpoints: Sendable {
  private let body: (@Sendable (String) -> Void)?

  public init(_ body: @escaping @Sendable (String) -> Void) { self.body = body }
  private init() { body = nil }

  public static let none = Failpoints()

  public func hit(_ name: @autoclosure () -> String) {
    if let body { body(name()) }
  }
}
