import Brokering
import Foundation
import RFB

/// Passwords as scrypt hashes, tickets as VNC passwords.
///
/// Hashes are made one after the other on a queue of their own: each takes 32 MiB
/// and tens of milliseconds, and a flood of logins may have neither all memory nor
/// the threads of everybody else.
public struct SystemAuthenticator: Authenticator {
  private let cryptography = SystemCryptography()
  private let queue = DispatchQueue(label: "carrel.identity.scrypt", qos: .userInitiated)
  /// What a guess for an unknown user is compared with, so that it costs the same.
  private let nobody: PasswordHash

  public init() throws {
    nobody = try PasswordHash(
      of: cryptography.randomBytes(PasswordHash.hashLength),
      salt: cryptography.randomBytes(PasswordHash.saltLength))
  }

  public func makeVerifier(of password: [UInt8]) async throws -> String {
    guard !password.isEmpty else {
      throw IdentityError(.unusablePassword, "the password is empty: choose one")
    }
    guard password.count <= ServerHandshake.passwordLimit, !password.contains(0) else {
      throw IdentityError(
        .unusablePassword,
        "the password is longer than \(ServerHandshake.passwordLimit) bytes or holds a NUL: "
          + "choose another")
    }
    let salt = cryptography.randomBytes(PasswordHash.saltLength)
    return try await onQueue { try PasswordHash(of: password, salt: salt).line }
  }

  public func verify(_ password: [UInt8], against verifier: String?) async -> Bool {
    let stored = verifier.flatMap(PasswordHash.init(line:))
    let hash = stored ?? nobody
    let matches = try? await onQueue { hash.matches(password) }
    return matches == true && stored != nil
  }

  public func makeTicketSecret() -> String {
    var generator = SystemRandomNumberGenerator()
    return Ticket.makeSecret(using: &generator)
  }

  public func ticket(
    _ secret: String, answers challenge: [UInt8], with response: [UInt8]
  ) -> Bool {
    guard challenge.count == VNCAuthentication.challengeLength,
      response.count == VNCAuthentication.challengeLength
    else { return false }
    let expected = cryptography.vncResponse(challenge: challenge, password: Array(secret.utf8))
    return constantTimeEqual(expected, response)
  }

  private func onQueue<Value: Sendable>(
    _ work: @escaping @Sendable () throws -> Value
  ) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      queue.async { continuation.resume(with: Result(catching: work)) }
    }
  }
}

/// A one-time password as short as VNC authentication can carry.
enum Ticket {
  /// No `0 o`, `1 i l`: read out or copied by hand they would be confused.
  static let alphabet = Array("23456789abcdefghjkmnpqrstuvwxyz")

  static func makeSecret(using generator: inout some RandomNumberGenerator) -> String {
    String(
      (0..<VNCAuthentication.passwordLength).map { _ in
        alphabet[Int.random(in: alphabet.indices, using: &generator)]
      })
  }
}
