/// The cryptography that RFB's own security types need. TLS is not among it: the
/// shell around the state machine provides that.
public protocol Cryptography: Sendable {
  /// `count` bytes that nobody can foretell. Called on any thread.
  func randomBytes(_ count: Int) -> [UInt8]

  /// What a viewer that knows `password` answers to the 16-byte `challenge` under
  /// VNC authentication (RFC 6143 section 7.2.2): DES in ECB mode, the key being
  /// the first eight bytes of the password, bits mirrored. Called on any thread.
  func vncResponse(challenge: [UInt8], password: [UInt8]) -> [UInt8]
}

/// Sizes of VNC authentication.
public enum VNCAuthentication {
  public static let challengeLength = 16
  public static let passwordLength = 8
}
