import Brokering
import ControlAPI
import Foundation
import Hummingbird
import Logging
import ServiceLifecycle

/// The admin API on a Unix socket. Whoever may open the socket may do everything:
/// it lies in the runtime directory, which is its owner's alone.
public struct ControlServer: Service {
  /// What the API tells that the broker does not know.
  public struct Surroundings: Sendable {
    public var version: String
    public var started: WireTime
    /// Where viewers connect, and the certificate they see.
    public var gateway: @Sendable () async -> (addresses: [String], fingerprint: String?)
    public var doctor: @Sendable () async -> DoctorDocument
    /// Where desktops' disks are made.
    public var datastore: String
    public var library: any ImageLibrary
    public var templates: any TemplateLibrary
    public var backups: any BackupKeeper
    /// Why no desktop can be started on this host, with the remedy, if that is so.
    public var obstacle: @Sendable () async -> String?

    public init(
      version: String, started: WireTime,
      gateway: @escaping @Sendable () async -> (addresses: [String], fingerprint: String?),
      doctor: @escaping @Sendable () async -> DoctorDocument, datastore: String,
      library: any ImageLibrary, templates: any TemplateLibrary, backups: any BackupKeeper,
      obstacle: @escaping @Sendable () async -> String? = { nil }
    ) {
      self.version = version
      self.started = started
      self.gateway = gateway
      self.doctor = doctor
      self.datastore = datastore
      self.library = library
      self.templates = templates
      self.backups = backups
      self.obstacle = obstacle
    }
  }

  /// More than any request body needs.
  static let largestBody = 64 * 1024

  private let socketPath: String
  private let broker: Broker
  private let surroundings: Surroundings
  private let logger: Logger

  public init(
    broker: Broker, socketPath: String, surroundings: Surroundings, logger: Logger
  ) {
    self.socketPath = socketPath
    self.logger = logger
    self.broker = broker
    self.surroundings = surroundings
  }

  /// Listens until cancelled or shut down gracefully; removes the socket then.
  public func run() async throws {
    try removeStaleSocket()
    defer { unlink(socketPath) }
    let application = Application(
      router: Self.makeRouter(broker: broker, surroundings: surroundings),
      configuration: .init(address: .unixDomainSocket(path: socketPath)),
      onServerRunning: { [socketPath, logger] _ in
        chmod(socketPath, 0o600)
        logger.info("control API listens", metadata: ["socket": "\(socketPath)"])
      },
      logger: logger)
    try await application.run()
  }

  /// A socket nobody listens on is left by a carreld that was killed.
  private func removeStaleSocket() throws(BrokerError) {
    var status = stat()
    // SAFETY: lstat fills the structure given or fails.
    guard lstat(socketPath, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else {
      throw BrokerError(
        .conflict, "\(socketPath) is in the way of the control socket: move it away")
    }
    unlink(socketPath)
  }

  static func makeRouter(
    broker: Broker, surroundings: Surroundings
  ) -> Router<ControlContext> {
    let router = Router(context: ControlContext.self)
    router.add(middleware: ErrorAnswers())
    addSystemRoutes(to: router, broker, surroundings)
    addPoolRoutes(to: router, broker, surroundings)
    addImageRoutes(to: router, broker, surroundings.library)
    addDesktopRoutes(to: router, broker)
    addSnapshotRoutes(to: router, broker)
    addTemplateRoutes(to: router, broker, surroundings.templates)
    addBackupRoutes(to: router, broker, surroundings.backups)
    addUserRoutes(to: router, broker)
    addSessionRoutes(to: router, broker)
    return router
  }

  /// Every route as `GET /v1/pools/{name}`, to be compared with the OpenAPI document.
  package static func routes(
    of broker: Broker, _ library: any ImageLibrary, _ templates: any TemplateLibrary,
    _ backups: any BackupKeeper
  ) -> [String] {
    let surroundings = Surroundings(
      version: "", started: WireTime(milliseconds: 0), gateway: { ([], nil) },
      doctor: { DoctorDocument(checks: []) }, datastore: "/", library: library,
      templates: templates, backups: backups)
    return makeRouter(broker: broker, surroundings: surroundings).routes.map {
      "\($0.method.rawValue) \($0.path.description)"
    }
  }
}
