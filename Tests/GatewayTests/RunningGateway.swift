import Brokering
import Foundation
import Gateway
import Identity
import Logging
import TestSupport

/// A gateway on free ports of the loopback interface, with a certificate of its own.
final class RunningGateway: Sendable {
  let broker = FakeBroker()
  let displays: StubDisplay
  let gateway: Gateway
  let directory: CertificateDirectory
  private let temporary: TemporaryDirectory
  let addresses: Gateway.Addresses

  var port: Int { addresses.viewers[0].port }
  var webPort: Int { addresses.web[0].port }

  init(
    displays: StubDisplay = StubDisplay(),
    _ configure: (inout GatewayConfiguration) -> Void = { _ in }
  ) async throws {
    self.displays = displays
    temporary = try TemporaryDirectory()
    directory = CertificateDirectory(path: temporary.path("certificate"))
    _ = try directory.prepare(hostName: ProcessInfo.processInfo.hostName)
    var configuration = GatewayConfiguration(
      viewers: [.init(host: "127.0.0.1", port: 0)], web: [.init(host: "127.0.0.1", port: 0)],
      tls: .init(certificatePath: directory.certificatePath, keyPath: directory.keyPath))
    configure(&configuration)
    var logger = Logger(label: "test") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .critical
    gateway = try Gateway(
      configuration: configuration, broker: broker, displays: displays,
      cryptography: SystemCryptography(), logger: logger)
    addresses = try await gateway.start()
  }

  func stop() async throws {
    try await gateway.stop()
  }
}

/// Runs a gateway for as long as `body` takes.
func withGateway(
  displays: StubDisplay = StubDisplay(), _ body: (RunningGateway) async throws -> Void,
  configure: (inout GatewayConfiguration) -> Void = { _ in }
) async throws {
  let running = try await RunningGateway(displays: displays, configure)
  do {
    try await body(running)
  } catch {
    try await running.stop()
    throw error
  }
  try await running.stop()
}
