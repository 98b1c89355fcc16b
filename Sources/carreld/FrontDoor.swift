import Brokering
import Foundation
import Gateway
import Identity
import Logging
import SiteConfiguration
import Supervisor

/// The gateway as the configuration wants it, with its certificate.
struct FrontDoor {
  let gateway: Gateway
  let fingerprint: String
  private let webScheme: String

  init(
    configuration: CarrelConfiguration, directory: SiteDirectory, broker: any SessionBroker,
    displays: any DisplayLauncher, failpoints: Failpoints, logger: Logger
  ) throws {
    let (files, fingerprint) = try Self.certificate(
      configuration.gateway, directory, failpoints, logger)
    self.fingerprint = fingerprint
    webScheme = configuration.gateway.webTLS ? "https" : "http"
    gateway = try Gateway(
      configuration: try GatewayConfiguration(configuration.gateway, tls: files),
      broker: broker, displays: displays, cryptography: SystemCryptography(), logger: logger)
  }

  /// What `carrel status` shows.
  func describe() -> (addresses: [String], fingerprint: String?) {
    let listening = gateway.listening
    let viewers = (listening?.viewers ?? []).map { "vnc://\($0)" }
    let web = (listening?.web ?? []).map { "\(webScheme)://\($0)/" }
    return (viewers + web, fingerprint)
  }

  /// The site's own certificate, or one issued here.
  private static func certificate(
    _ settings: CarrelConfiguration.Gateway, _ directory: SiteDirectory,
    _ failpoints: Failpoints, _ logger: Logger
  ) throws -> (GatewayConfiguration.TLSFiles, String) {
    guard settings.certificate.isEmpty else {
      try settings.checkFiles()
      let fingerprint = try CertificateDirectory.fingerprint(ofFile: settings.certificate)
      return (
        .init(certificatePath: settings.certificate, keyPath: settings.key), fingerprint
      )
    }
    let certificates = CertificateDirectory(
      path: directory.certificates, failpoints: failpoints)
    let outcome = try certificates.prepare(hostName: ProcessInfo.processInfo.hostName)
    logger.notice(
      outcome.isNew ? "certificate issued" : "certificate",
      metadata: [
        "file": "\(certificates.certificatePath)", "sha256": "\(outcome.fingerprint)",
      ])
    return (
      .init(certificatePath: certificates.certificatePath, keyPath: certificates.keyPath),
      outcome.fingerprint
    )
  }
}

extension CarrelConfiguration.Gateway {
  /// That the files which the configuration names can be read.
  func checkFiles() throws(DaemonError) {
    for (key, file) in [("certificate", certificate), ("key", self.key)] where !file.isEmpty {
      guard access(file, R_OK) != 0 else { continue }
      let reason = String(cString: strerror(errno))
      throw DaemonError(
        .certificate,
        "\(file), which is gateway.\(key) in the configuration, cannot be read by "
          + "\(NSUserName()) (\(reason)): put it there, or name another; without gateway.certificate "
          + "and gateway.key, carreld issues its own")
    }
  }
}

extension GatewayConfiguration {
  fileprivate init(_ settings: CarrelConfiguration.Gateway, tls: TLSFiles) throws {
    var limits = GatewayLimits()
    limits.handshake = .seconds(settings.handshakeSeconds)
    limits.person = .seconds(settings.loginSeconds)
    limits.stall = .seconds(settings.stallSeconds)
    limits.strangers = settings.strangers
    limits.strangersPerPeer = settings.strangersPerAddress
    limits.viewers = settings.viewers
    self.init(
      viewers: settings.listen.map { Endpoint(host: $0.host, port: $0.port) },
      web: settings.web.map { Endpoint(host: $0.host, port: $0.port) },
      webTLS: settings.webTLS, tls: tls, tickets: settings.tickets,
      passwordlessUser: settings.passwordlessUser.isEmpty
        ? nil : try UserName(checking: settings.passwordlessUser),
      cleartextSessions: settings.cleartextSessions,
      noVNCDirectory: settings.novncDirectory, limits: limits)
  }
}

extension Supervisor {
  /// The supervisor that the configuration describes.
  static func make(
    _ configuration: CarrelConfiguration, _ directory: SiteDirectory, failpoints: Failpoints,
    logger: Logger
  ) throws -> Supervisor {
    try Supervisor(
      settings: Settings(
        runtimeDirectory: directory.runtime, stateDirectory: directory.state,
        vmm: try program("vmm", configuration.programs.vmm),
        display: try program("display", configuration.programs.display)),
      failpoints: failpoints, logger: logger)
  }

  private static func program(_ key: String, _ name: String) throws(DaemonError) -> String {
    if let path = Places.program(name) { return path }
    throw DaemonError(
      .program,
      "'\(name)' is not found beside carreld or on PATH: install it, or set programs.\(key) in "
        + "the configuration")
  }
}

/// Display processes for the gateway, started by the supervisor.
struct SupervisedDisplays: DisplayLauncher {
  let supervisor: Supervisor

  func launch(for id: ConnectionID) async throws -> DisplayEndpoint {
    let display = try await supervisor.spawnDisplay(for: id)
    return DisplayEndpoint(viewer: display.viewer, control: display.control)
  }
}
