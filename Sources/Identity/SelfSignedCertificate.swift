import Crypto
import Foundation
import SwiftASN1
import X509

/// A certificate that vouches for itself: viewers are given it as their authority.
enum SelfSignedCertificate {
  static func make(
    key: Certificate.PrivateKey, hostName: String, notBefore: Date, notAfter: Date
  ) throws -> Certificate {
    let name = try DistinguishedName {
      CommonName(hostName)
      OrganizationName("Carrel")
    }
    // Both an authority and a server, so that one file serves `-X509CA` and browsers.
    let extensions = try Certificate.Extensions {
      Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
      Critical(KeyUsage(digitalSignature: true, keyCertSign: true))
      try ExtendedKeyUsage([.serverAuth])
      SubjectAlternativeNames(names(hostName))
    }
    return try Certificate(
      version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: key.publicKey,
      notValidBefore: notBefore, notValidAfter: notAfter, issuer: name, subject: name,
      extensions: extensions, issuerPrivateKey: key)
  }

  /// Everything a viewer on this host, or one that knows its name, may call it.
  private static func names(_ hostName: String) -> [GeneralName] {
    var loopback6 = [UInt8](repeating: 0, count: 16)
    loopback6[15] = 1
    var names: [GeneralName] = [
      .dnsName("localhost"),
      .ipAddress(ASN1OctetString(contentBytes: [127, 0, 0, 1])),
      .ipAddress(ASN1OctetString(contentBytes: loopback6[...])),
    ]
    if !hostName.isEmpty, hostName != "localhost" { names.append(.dnsName(hostName)) }
    return names
  }
}
