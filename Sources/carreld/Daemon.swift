import Brokering
import ControlAPI
import ControlServer
import Foundation
import Identity
import Logging
import ServiceLifecycle
import SiteConfiguration
import Store
import Supervisor

/// Everything in carreld, put together in one place.
struct Daemon {
  private let store: SQLiteStore
  private let supervisor: Supervisor?
  private let services: [any Service]
  private let logger: Logger

  /// Opens the store and builds the services; nothing listens yet.
  init(
    configuration: CarrelConfiguration, directory: SiteDirectory, simulate: Bool, logger: Logger
  ) async throws {
    let failpoints = Failpoints.fromEnvironment()
    let clock = SystemClock()
    self.logger = logger
    store = try SQLiteStore(path: directory.database, failpoints: failpoints)
    supervisor =
      simulate
      ? nil
      : try Supervisor.make(configuration, directory, failpoints: failpoints, logger: logger)
    let launcher: any Launcher =
      supervisor
      ?? SimulatedLauncher(directory: directory.simulation, failpoints: failpoints)
    let broker = Broker(
      store: store, coding: JSONRecordCoding(), launcher: launcher,
      authenticator: try SystemAuthenticator(), clock: clock,
      settings: Broker.Settings(configuration),
      memory: simulate ? nil : try MemoryMonitor(logger: logger), failpoints: failpoints,
      observe: { $0.log(to: logger) })
    try await broker.load()
    let door = try supervisor.map {
      try FrontDoor(
        configuration: configuration, directory: directory, broker: broker,
        displays: SupervisedDisplays(supervisor: $0), failpoints: failpoints, logger: logger)
    }
    let control = ControlServer(
      broker: broker, socketPath: directory.controlSocket,
      surroundings: .init(
        version: Carreld.version, started: WireTime(clock.now),
        gateway: { door?.describe() ?? ([], nil) },
        doctor: {
          var report = await HostChecks(configuration, running: true).reportAside()
          report.checks += HostChecks.pools(in: await broker.snapshot)
          return report
        },
        datastore: directory.state,
        library: ImageStore(
          stateDirectory: directory.state, builder: Places.program("carrel-image-build"),
          now: { clock.now }, logger: logger),
        templates: supervisor ?? NoTemplates(),
        backups: supervisor.map { BackupStore(supervisor: $0, logger: logger) } ?? NoBackups(),
        obstacle: {
          simulate ? nil : await HostChecks(configuration, running: true).obstacle()
        }),
      logger: logger)
    services = [BrokerService(broker: broker), control] + (door.map { [$0.gateway] } ?? [])
  }

  /// Serves until SIGTERM or SIGINT, or until a service fails.
  func serve() async throws {
    let group = ServiceGroup(
      configuration: .init(
        services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
    defer { store.close() }
    do {
      try await group.run()
    } catch {
      await supervisor?.endTemplates()
      throw error
    }
    await supervisor?.endTemplates()
  }
}

/// The broker in the service group.
private struct BrokerService: Service {
  let broker: Broker

  func run() async throws {
    try await withGracefulShutdownHandler {
      try await broker.run()
    } onGracefulShutdown: {
      Task { await broker.stop() }
    }
  }
}

extension Broker.Settings {
  init(_ configuration: CarrelConfiguration) {
    self.init(
      throttle: .init(
        failures: configuration.logins.failures,
        windowSeconds: configuration.logins.windowSeconds,
        lockoutSeconds: configuration.logins.lockoutSeconds),
      ticketSeconds: configuration.logins.ticketSeconds,
      memory: MemoryPolicy(configuration.memory), bootsAtOnce: configuration.desktops.mostBoots,
      stopDesktopsAtEnd: configuration.desktops.stopAtExit)
  }
}

extension CarrelConfiguration.Desktops {
  private static let fewestBoots = 4

  fileprivate var mostBoots: Int {
    bootsAtOnce > 0
      ? bootsAtOnce : max(Self.fewestBoots, ProcessInfo.processInfo.activeProcessorCount)
  }
}

extension MemoryPolicy {
  init(_ memory: CarrelConfiguration.Memory) {
    self.init(
      overcommitPercent: Int((memory.overcommitRatio * 100).rounded()),
      reserveMiB: memory.reserveMiB, watermarkPercent: memory.watermarkPercent,
      criticalPercent: memory.criticalPercent)
  }
}

extension Decision {
  func log(to logger: Logger) {
    var metadata: Logger.Metadata = ["reason": "\(reason.rawValue)"]
    if let user { metadata["user"] = "\(user)" }
    if let desktop { metadata["desktop"] = "\(desktop)" }
    logger.info("\(text)", metadata: metadata)
  }
}
