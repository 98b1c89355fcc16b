import Brokering

/// Everything `config/carrel.yaml` may say, with the values it has when it says nothing.
public struct CarrelConfiguration: Hashable, Sendable {
  /// Records, certificate, disks. Empty: the usual place for the user carreld runs as.
  public var stateDirectory = ""
  /// Sockets and running desktops. Empty: the usual place.
  public var runtimeDirectory = ""
  public var gateway = Gateway()
  public var logins = Logins()
  public var programs = Programs()
  public var desktops = Desktops()
  public var memory = Memory()
  public var log = Log()

  public init() {}

  public struct Gateway: Hashable, Sendable {
    public var listen = [Endpoint(host: "0.0.0.0", port: 5900)]
    public var web = [Endpoint(host: "0.0.0.0", port: 8443)]
    public var webTLS = true
    /// Empty: issued by Carrel in the state directory.
    public var certificate = ""
    public var key = ""
    public var tickets = true
    public var cleartextSessions = false
    /// Empty: nobody logs in without password.
    public var passwordlessUser = ""
    public var novncDirectory = "/usr/share/novnc"
    public var handshakeSeconds = 10
    public var loginSeconds = 120
    public var stallSeconds = 2
    public var strangers = 256
    public var strangersPerAddress = 32
    public var viewers = 1024
  }

  public struct Logins: Hashable, Sendable {
    public var failures = 5
    public var windowSeconds = 300
    public var lockoutSeconds = 300
    public var ticketSeconds = 120
  }

  public struct Programs: Hashable, Sendable {
    /// A name is looked for beside carreld, then on PATH.
    public var vmm = "carrel-vmm"
    public var display = "carrel-display"
  }

  public struct Desktops: Hashable, Sendable {
    public var stopAtExit = false
    /// 0: as many as the host has processors.
    public var bootsAtOnce = 0
  }

  /// See `MemoryPolicy`.
  public struct Memory: Hashable, Sendable {
    public var overcommitRatio = 1.5
    public var reserveMiB = 1024
    public var watermarkPercent = 10
    public var criticalPercent = 5
  }

  public struct Log: Hashable, Sendable {
    public var level = "info"
    public static let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
  }

  /// An address to listen on. Port 0: any free one.
  public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    public var host: String
    public var port: Int

    public init(host: String, port: Int) {
      self.host = host
      self.port = port
    }

    /// `host:port` or `[v6]:port`.
    public init?(_ text: String) {
      guard let colon = text.lastIndex(of: ":"),
        let port = Int(text[text.index(after: colon)...]), (0...65_535).contains(port)
      else { return nil }
      var host = String(text[..<colon])
      if host.hasPrefix("["), host.hasSuffix("]") {
        host = String(host.dropFirst().dropLast())
      } else if host.contains(":") {
        return nil
      }
      guard !host.isEmpty, !host.contains(" ") else { return nil }
      self.init(host: host, port: port)
    }

    public var description: String {
      host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
  }
}
