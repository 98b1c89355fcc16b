import Brokering
import Crypto
import Foundation
import SwiftASN1
import X509

/// The directory that holds the gateway's certificate and key, and the one owner of
/// their file names.
public struct CertificateDirectory: Sendable {
  /// A certificate issued here is replaced this long before it ends.
  static let renewal: TimeInterval = 30 * 86_400
  /// The longest life that every client accepts (825 days, by Apple's rule).
  static let life: TimeInterval = 820 * 86_400

  public let path: String
  private let failpoints: Failpoints

  public init(path: String, failpoints: Failpoints = .none) {
    self.path = path
    self.failpoints = failpoints
  }

  public var certificatePath: String { path + "/certificate.pem" }
  public var keyPath: String { path + "/key.pem" }

  /// What a start of the gateway found or made.
  public struct Outcome: Sendable {
    /// Whether the certificate is new: viewers that pinned an earlier one will ask.
    public let isNew: Bool
    /// SHA-256 over the certificate, as `AB:CD:…`.
    public let fingerprint: String
  }

  /// Makes sure that a usable certificate is there and returns its fingerprint.
  /// Issues a self-signed one for localhost, 127.0.0.1, ::1 and `hostName` where
  /// there is none or the one that we issued is about to end. Never touches files
  /// that it cannot read as a certificate or key.
  public func prepare(hostName: String, now: Date = Date()) throws -> Outcome {
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o700])
    let key = try loadKey()
    if let certificate = try loadCertificate() {
      guard let key, certificate.publicKey == key.publicKey else {
        throw IdentityError(
          .unusableCertificate,
          "\(certificatePath) does not belong to the key in \(keyPath): put matching files "
            + "there, or remove both to have new ones issued")
      }
      let isOurs = certificate.issuer == certificate.subject
      if !isOurs || certificate.notValidAfter.timeIntervalSince(now) > Self.renewal {
        return Outcome(isNew: false, fingerprint: try Self.fingerprint(of: certificate))
      }
    }
    return try issue(key: key, hostName: hostName, now: now)
  }

  /// The key goes to disk before the certificate: whatever instant a crash picks,
  /// what is there can be completed.
  private func issue(
    key existing: Certificate.PrivateKey?, hostName: String, now: Date
  ) throws -> Outcome {
    let key: Certificate.PrivateKey
    if let existing {
      key = existing
    } else {
      key = Certificate.PrivateKey(P256.Signing.PrivateKey())
      try PrivateFile.write(
        try key.serializeAsPEM().pemString + "\n", to: keyPath, mode: 0o600,
        failpoints: failpoints, "identity.key")
    }
    let certificate = try SelfSignedCertificate.make(
      key: key, hostName: hostName, notBefore: now.addingTimeInterval(-3600),
      notAfter: now.addingTimeInterval(Self.life))
    try PrivateFile.write(
      try certificate.serializeAsPEM().pemString + "\n", to: certificatePath, mode: 0o644,
      failpoints: failpoints, "identity.certificate")
    return Outcome(isNew: true, fingerprint: try Self.fingerprint(of: certificate))
  }

  private func loadKey() throws -> Certificate.PrivateKey? {
    guard let text = try PrivateFile.read(keyPath) else { return nil }
    do {
      return try Certificate.PrivateKey(pemEncoded: text)
    } catch {
      throw IdentityError(
        .unusableCertificate,
        "\(keyPath) is not a private key in PEM: replace it, or remove it and "
          + "\(certificatePath) to have new ones issued", cause: error)
    }
  }

  private func loadCertificate() throws -> Certificate? {
    guard let text = try PrivateFile.read(certificatePath) else { return nil }
    do {
      // A chain begins with the server's own certificate.
      guard let first = try PEMDocument.parseMultiple(pemString: text).first else {
        throw IdentityError(.unusableCertificate, "no certificate in the file")
      }
      return try Certificate(pemDocument: first)
    } catch {
      throw IdentityError(
        .unusableCertificate,
        "\(certificatePath) is not a certificate in PEM: replace it, or remove it and "
          + "\(keyPath) to have new ones issued", cause: error)
    }
  }

  /// The fingerprint of the first certificate in a PEM file that the site provides.
  public static func fingerprint(ofFile path: String) throws -> String {
    do {
      // What is no text is no PEM either.
      let text = String(decoding: try Data(contentsOf: URL(fileURLWithPath: path)), as: UTF8.self)
      guard let first = try PEMDocument.parseMultiple(pemString: text).first else {
        throw IdentityError(.unusableCertificate, "no certificate in the file")
      }
      return try fingerprint(of: try Certificate(pemDocument: first))
    } catch {
      throw IdentityError(
        .unusableCertificate, "\(path) is not a readable certificate in PEM: name another",
        cause: error)
    }
  }

  static func fingerprint(of certificate: Certificate) throws -> String {
    var serializer = DER.Serializer()
    try serializer.serialize(certificate)
    return SHA256.hash(data: serializer.serializedBytes)
      .map { byte in
        let text = String(byte, radix: 16, uppercase: true)
        return text.count == 1 ? "0" + text : text
      }
      .joined(separator: ":")
  }
}
