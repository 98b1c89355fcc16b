import LinuxSystem

extension NetworkLink {
  private static let passt = "/usr/bin/passt"

  /// Plugs a network card's cable into what its configuration names; `nil` for a card
  /// without one.
  ///
  /// - Throws: `MachineError` of kind `host`, saying what is missing.
  package static func open(
    _ network: MachineConfiguration.Network
  ) throws(MachineError) -> NetworkLink? {
    do {
      switch network.backend {
      case .none: return nil
      case .user: return try startPasst(reachesHost: network.reachesHost)
      case .socket(let path):
        return try NetworkLink(
          .stream(try UnixSocket.connect(to: path, kind: .stream)), name: path)
      case .tap(let name): return try attach(name, queues: network.queues)
      }
    } catch {
      throw MachineError(
        .host, "the network card's other end could not be opened",
        remedy: remedy(network, error.kind), cause: error)
    }
  }

  private static func remedy(
    _ network: MachineConfiguration.Network, _ kind: SystemError.Kind
  ) -> String {
    switch (network.backend, kind) {
    case (.user, _): "install the package passt"
    case (.tap(let interface), .permissionDenied):
      "make it for this user: ip tuntap add \(interface) mode tap"
        + (network.queues > 1 ? " multi_queue" : "") + " user $USER"
    case (.tap, .busy): "end what is attached to it, or give each card an interface of its own"
    case (.tap, .notFound): "load the kernel's module tun"
    case (.tap, _): "give a TAP interface's name, of at most 15 characters"
    case (.socket, _), (.none, _): "start what listens there first"
    }
  }

  private static func attach(_ name: String, queues: Int) throws(SystemError) -> NetworkLink {
    let interface = try TAPInterface(name, queues: queues)
    if interface.queues.count < queues {
      StandardError.report(
        "\(name) was made with one queue, which the network card's \(queues) pairs share; for"
          + " more, make it with: ip tuntap add \(name) mode tap multi_queue user $USER")
    }
    return try NetworkLink(.tap(interface), name: name)
  }

  /// A network of the machine's own behind this host's addresses. It ends with the socket,
  /// and so with this process, however that ends.
  private static func startPasst(reachesHost: Bool) throws(SystemError) -> NetworkLink {
    let (mine, theirs) = try UnixSocket.pair(kind: .stream)
    let (complaints, standardError) = try UnixSocket.pair(kind: .stream)
    // Without forwarded ports, which would be this host's; its frames fit the card's buffers.
    var arguments = ["--foreground", "--quiet", "--stderr", "--mtu", "1500", "--fd", "3"]
    if !reachesHost {
      // Otherwise the router's address stands for this host's loopback, and for its resolver.
      arguments.append("--no-map-gw")
      for server in NameServers.toTell() { arguments += ["--dns", server] }
    }
    // Watched first: no change goes unseen.
    let addresses = reachesHost ? nil : try HostAddresses()
    let filter = reachesHost ? nil : HostFilter(own: try HostAddresses.current())
    var request = ChildProcess.Request(passt, arguments)
    request.descriptors = [2: standardError.descriptor, 3: theirs.descriptor]
    _ = try ChildProcess(request)
    return try NetworkLink(
      .stream(mine), name: "passt", complaints: complaints, addresses: addresses, filter: filter)
  }
}
