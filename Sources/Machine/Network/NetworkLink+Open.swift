import LinuxSystem

extension NetworkLink {
  private static let passt = "/usr/bin/passt"

  /// Plugs a network card's cable into what its configuration names; `nil` for a card
  /// without one.
  ///
  /// - Throws: `MachineError` of kind `host`, saying what is missing.
  static func open(_ backend: MachineConfiguration.Network.Backend) throws(MachineError)
    -> NetworkLink?
  {
    do {
      switch backend {
      case .none: return nil
      case .user: return try startPasst()
      case .socket(let path):
        return try NetworkLink(
          .stream(try UnixSocket.connect(to: path, kind: .stream)), name: path)
      case .tap(let interface):
        return try NetworkLink(.tap(try FileDescriptor.tap(interface)), name: interface)
      }
    } catch {
      throw MachineError(
        .host, "the network card's other end could not be opened",
        remedy: remedy(backend), cause: error)
    }
  }

  private static func remedy(_ backend: MachineConfiguration.Network.Backend) -> String {
    switch backend {
    case .user: "install the package passt"
    case .tap(let interface):
      "make it for this user: ip tuntap add \(interface) mode tap user $USER"
    case .socket, .none: "start what listens there first"
    }
  }

  /// A network of the machine's own behind this host's addresses. It ends with the socket,
  /// and so with this process, however that ends.
  private static func startPasst() throws(SystemError) -> NetworkLink {
    let (mine, theirs) = try UnixSocket.pair(kind: .stream)
    let (complaints, standardError) = try UnixSocket.pair(kind: .stream)
    // Without forwarded ports, which would be this host's; its frames fit the card's buffers.
    var request = ChildProcess.Request(
      passt, ["--foreground", "--quiet", "--stderr", "--mtu", "1500", "--fd", "3"])
    request.descriptors = [2: standardError.descriptor, 3: theirs.descriptor]
    _ = try ChildProcess(request)
    return try NetworkLink(.stream(mine), name: "passt", complaints: complaints)
  }
}
