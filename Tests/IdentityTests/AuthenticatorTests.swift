import Brokering
import Identity
import RFB
import Testing

@Suite("Passwords and tickets")
struct AuthenticatorTests {
  let authenticator: SystemAuthenticator

  init() throws { authenticator = try SystemAuthenticator() }

  @Test("a password is known again by its verifier, and no other is")
  func roundTrip() async throws {
    let verifier = try await authenticator.makeVerifier(of: Array("wonderland".utf8))
    #expect(verifier.hasPrefix("$scrypt$ln=15,r=8,p=1$"))
    #expect(await authenticator.verify(Array("wonderland".utf8), against: verifier))
    #expect(await !authenticator.verify(Array("wonderlane".utf8), against: verifier))
    #expect(await !authenticator.verify([], against: verifier))
    let again = try await authenticator.makeVerifier(of: Array("wonderland".utf8))
    #expect(again != verifier, "each has its own salt")
  }

  @Test("a hash made by another scrypt is understood")
  func interoperability() async {
    // Made with Python's hashlib.scrypt.
    let verifier =
      "$scrypt$ln=10,r=8,p=1$AAECAwQFBgcICQoLDA0ODw==$O0zCwPSfOFN6dzIoge8i2ot5Gu0NVQ4sDD35UNtXrKE="
    #expect(await authenticator.verify(Array("wonderland".utf8), against: verifier))
    #expect(await !authenticator.verify(Array("Wonderland".utf8), against: verifier))
  }

  @Test("a damaged verifier lets nobody in")
  func damaged() async {
    for verifier in [
      "", "wonderland", "$scrypt$", "$scrypt$ln=15,r=8,p=1$$", "$scrypt$ln=99,r=8,p=1$AA==$AA==",
      "$scrypt$ln=15,r=8$AAECAwQFBgcICQoLDA0ODw==$AAECAwQFBgcICQoLDA0ODw==",
    ] {
      #expect(await !authenticator.verify(Array("wonderland".utf8), against: verifier))
    }
  }

  @Test("an unknown user costs as much as a wrong password")
  func sameTime() async throws {
    let verifier = try await authenticator.makeVerifier(of: Array("wonderland".utf8))
    let clock = ContinuousClock()
    var known = Duration.seconds(9)
    var unknown = Duration.seconds(9)
    for _ in 0..<3 {
      known = min(
        known,
        await clock.measure { _ = await authenticator.verify([1, 2, 3], against: verifier) })
      unknown = min(
        unknown,
        await clock.measure { _ = await authenticator.verify([1, 2, 3], against: nil) })
    }
    #expect(unknown > known / 2)
    #expect(unknown < known * 2)
  }

  @Test("empty, endless and NUL-ridden passwords are refused with the reason")
  func unusable() async {
    for password in [[], [UInt8](repeating: 65, count: 1025), [65, 0, 66]] {
      await #expect(throws: IdentityError.self) {
        try await authenticator.makeVerifier(of: password)
      }
    }
  }

  @Test("VNC authentication's DES is the one that viewers use")
  func challengeResponse() {
    let cryptography = SystemCryptography()
    let challenge = (0..<16).map { UInt8($0) }
    // Made with OpenSSL's DES-ECB under the key with mirrored bits.
    for (password, response) in [
      ("password", "b866924125c8eebb9debc1db61c538e2"),
      ("wonderland", "6bd2b99955383013d17727ecf7bab26b"),
      ("", "491e890de9ace932838a49792f2213f3"),
    ] {
      let answer = cryptography.vncResponse(challenge: challenge, password: Array(password.utf8))
      #expect(hexadecimal(answer) == response)
    }
  }

  @Test("a ticket answers its own challenge and no other")
  func ticket() {
    let cryptography = SystemCryptography()
    let secret = authenticator.makeTicketSecret()
    let challenge = cryptography.randomBytes(16)
    let response = cryptography.vncResponse(challenge: challenge, password: Array(secret.utf8))
    #expect(authenticator.ticket(secret, answers: challenge, with: response))
    #expect(
      !authenticator.ticket(
        authenticator.makeTicketSecret(), answers: challenge, with: response))
    #expect(
      !authenticator.ticket(secret, answers: cryptography.randomBytes(16), with: response))
    #expect(!authenticator.ticket(secret, answers: [], with: []))
    #expect(!authenticator.ticket(secret, answers: challenge, with: Array(response.dropLast())))
  }

  @Test("tickets are eight characters that are not mistaken for others")
  func secrets() {
    let secrets = (0..<200).map { _ in authenticator.makeTicketSecret() }
    #expect(Set(secrets).count == secrets.count)
    #expect(secrets.allSatisfy { $0.count == 8 && $0.utf8.count == 8 })
    #expect(!secrets.joined().contains { "01iloIO".contains($0) })
  }

  private func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
