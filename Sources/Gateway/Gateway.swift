import Brokering
import LinuxSystem
import Logging
import NIOCore
import NIOPosix
import RFB
import ServiceLifecycle

/// The door of Carrel: viewers over TCP and browsers over HTTPS come in here, prove
/// who they are, and are joined to a display process each.
public final class Gateway: Service {
  /// Where it really listens, in the order of the configuration.
  public struct Addresses: Hashable, Sendable {
    public let viewers: [GatewayConfiguration.Endpoint]
    public let web: [GatewayConfiguration.Endpoint]
  }

  private let desk: LoginDesk
  private let group: MultiThreadedEventLoopGroup
  private let site: StaticSite?
  private let listeners = Guarded<[any Channel]>([])
  private let addresses = Guarded<Addresses?>(nil)

  /// - Throws: `GatewayError` when certificate, key or web files cannot be loaded.
  public init(
    configuration: GatewayConfiguration, broker: any SessionBroker,
    displays: any DisplayLauncher, cryptography: any Cryptography, logger: Logger,
    threads: Int = 2
  ) throws {
    let tls = try configuration.tls.map(TLSContexts.init)
    if !configuration.web.isEmpty, configuration.webTLS, tls == nil {
      throw GatewayError(
        .certificate, "HTTPS needs a certificate: name one, or turn TLS off for the web port")
    }
    site =
      configuration.web.isEmpty
      ? nil : try StaticSite(directory: configuration.noVNCDirectory)
    group = MultiThreadedEventLoopGroup(numberOfThreads: max(1, threads))
    desk = LoginDesk(
      configuration: configuration, tls: tls, cryptography: cryptography, broker: broker,
      displays: displays, logger: logger)
  }

  /// Where it listens; `nil` before `start`.
  public var listening: Addresses? { addresses.withLock { $0 } }

  /// Opens all listeners, or none. Called by `run`; by itself when the addresses are
  /// wanted first. Once.
  @discardableResult
  public func start() async throws -> Addresses {
    if let listening { return listening }
    var viewers: [GatewayConfiguration.Endpoint] = []
    var web: [GatewayConfiguration.Endpoint] = []
    do {
      for endpoint in desk.configuration.viewers {
        viewers.append(try await listen(at: endpoint, "viewers", viewerInitializer()))
      }
      for endpoint in desk.configuration.web {
        web.append(try await listen(at: endpoint, "browsers", webInitializer()))
      }
    } catch {
      await closeListeners()
      throw error
    }
    let result = Addresses(viewers: viewers, web: web)
    addresses.withLock { $0 = result }
    return result
  }

  /// Serves until the service group shuts down. Every viewer is closed then; the
  /// desktops run on.
  public func run() async throws {
    do {
      try await start()
      try await gracefulShutdown()
    } catch is CancellationError {
      // Shutting down without grace is shutting down.
    } catch {
      try? await stop()
      throw error
    }
    try await stop()
  }

  /// Closes listeners and viewers.
  public func stop() async throws {
    await closeListeners()
    try await group.shutdownGracefully()
  }

  private func closeListeners() async {
    let channels = listeners.withLock { listeners in
      defer { listeners = [] }
      return listeners
    }
    for channel in channels { try? await channel.close() }
  }
}

// MARK: - Listening

extension Gateway {
  private func listen(
    at endpoint: GatewayConfiguration.Endpoint, _ whom: String,
    _ initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Void>
  ) async throws -> GatewayConfiguration.Endpoint {
    do {
      let channel = try await ServerBootstrap(group: group)
        .serverChannelInitializer { [logger = desk.logger] channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(AcceptPause(whom, logger))
          }
        }
        .serverChannelOption(.backlog, value: 256)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
        // Keeps the kernel from hoarding frames that a slow line has yet to take.
        .childChannelOption(.tcp(ViewerSocket.notSentLowWater), value: 32 << 10)
        .childChannelOption(.writeBufferWaterMark, value: RelayHandler.waterMark)
        .childChannelInitializer(initializer)
        .bind(host: endpoint.host, port: endpoint.port)
        .get()
      listeners.withLock { $0.append(channel) }
      let port = channel.localAddress?.port ?? endpoint.port
      let bound = GatewayConfiguration.Endpoint(host: endpoint.host, port: port)
      desk.logger.info("listening for \(whom)", metadata: ["address": "\(bound)"])
      return bound
    } catch {
      throw GatewayError(
        .address,
        "cannot listen for \(whom) at \(endpoint): end whatever uses the port (`ss -ltnp` "
          + "shows it) or configure another", cause: error)
    }
  }

  private func viewerInitializer() -> @Sendable (any Channel) -> EventLoopFuture<Void> {
    let desk = self.desk
    return { channel in
      let peer = Peer(channel.remoteAddress)
      return channel.eventLoop.makeCompletedFuture {
        guard desk.admit(peer) else {
          channel.close(promise: nil)
          return
        }
        try channel.pipeline.syncOperations.addHandler(
          LoginHandler(desk: desk, peer: peer, transport: .tcp(loopback: peer.isLoopback)))
      }
    }
  }

  private func webInitializer() -> @Sendable (any Channel) -> EventLoopFuture<Void> {
    let desk = self.desk
    let site = self.site
    let tls = desk.configuration.webTLS ? desk.tls?.web : nil
    return { channel in
      let peer = Peer(channel.remoteAddress)
      return channel.eventLoop.makeCompletedFuture {
        guard let site, desk.admit(peer) else {
          channel.close(promise: nil)
          return
        }
        try WebPipeline.configure(channel, desk: desk, site: site, tls: tls, peer: peer)
      }
    }
  }
}

/// Numbers of tcp(7) that Glibc's module leaves out.
enum ViewerSocket {
  /// TCP_NOTSENT_LOWAT.
  static let notSentLowWater: CInt = 25
}
