import NIOCore
import NIOSSL

/// TLS as viewers and as browsers get it, with one certificate.
struct TLSContexts: Sendable {
  /// Inside VeNCrypt: TLS 1.2 only. In TLS 1.3 our side sends its session tickets
  /// together with its first data, and TigerVNC 1.12, having taken the tickets,
  /// leaves the data unread and waits for more; libvncclient with GnuTLS gives up on
  /// them. All ciphers have forward secrecy and authenticate, as those of 1.3 do.
  let veNCrypt: NIOSSLContext
  /// TLS 1.2 or 1.3.
  let web: NIOSSLContext

  private static let ciphers: [NIOTLSCipher] = [
    .TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, .TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    .TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, .TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    .TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    .TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
  ]

  init(_ files: GatewayConfiguration.TLSFiles) throws {
    do {
      let chain = try NIOSSLCertificate.fromPEMFile(files.certificatePath)
      let key = try NIOSSLPrivateKey(file: files.keyPath, format: .pem)
      var configuration = TLSConfiguration.makeServerConfiguration(
        certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
      configuration.minimumTLSVersion = .tlsv12
      configuration.cipherSuiteValues = Self.ciphers
      // How long a viewer that stopped listening may delay its own closing.
      configuration.shutdownTimeout = .seconds(1)
      web = try NIOSSLContext(configuration: configuration)
      configuration.maximumTLSVersion = .tlsv12
      veNCrypt = try NIOSSLContext(configuration: configuration)
    } catch {
      throw GatewayError(
        .certificate,
        "certificate \(files.certificatePath) with key \(files.keyPath) cannot be used: check "
          + "that both are PEM and belong together", cause: error)
    }
  }
}
