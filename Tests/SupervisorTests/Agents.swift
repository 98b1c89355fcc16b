import LinuxSystem
import QMP
import TestSupport

/// A guest agent that is played by the test: what it does once it is connected to.
final class FakeAgent: Sendable {
  private let listener: UnixListener
  private let commands = Guarded<[String]>([])
  private let thread = Guarded<Thread?>(nil)

  /// Serves so many connections, one after another.
  init(
    at path: String, connections: Int = 1,
    _ serve: @escaping @Sendable (FakeAgent.Peer) throws -> Void
  ) throws {
    listener = try UnixListener(at: path, kind: .stream)
    let (listener, commands) = (self.listener, self.commands)
    let thread = try Thread(name: "fake agent") {
      for _ in 0..<connections {
        guard let socket = try? listener.accept() else { return }
        try? serve(Peer(socket: socket, commands: commands))
      }
    }
    self.thread.withLock { $0 = thread }
  }

  /// What it was asked, without the synchronisation.
  var asked: [String] { commands.withLock { $0 } }

  /// Waits until it was asked that.
  func waitUntilAsked(_ name: String) {
    commands.wait(until: { $0.contains(name) }) { _ in }
  }

  /// Who asks.
  final class Peer {
    private let socket: UnixSocket
    private let commands: Guarded<[String]>
    private var received: [UInt8] = []

    fileprivate init(socket: UnixSocket, commands: Guarded<[String]>) {
      self.socket = socket
      self.commands = commands
    }

    func say(_ text: String) throws { try say(Array(text.utf8)) }

    func say(_ bytes: [UInt8]) throws {
      var rest = bytes[...]
      while !rest.isEmpty { rest.removeFirst(try socket.send(Array(rest))) }
    }

    /// The next command; `nil` when the peer has gone.
    func command() throws -> JSON? {
      var looked = 0
      while !received[looked...].contains(0x0A) {
        looked = received.count
        let message = try socket.receive()
        guard !message.isEnd else { return nil }
        received += message.bytes
      }
      let line = received.prefix { $0 != 0x0A }
      received.removeFirst(line.count + 1)
      let json = try JSON(parsing: line.filter { $0 != 0xFF })
      if let name = json["execute"]?.text, name != "guest-sync-delimited" {
        commands.change { $0.append(name) }
      }
      return json
    }

    /// Says that an agent is here.
    func synchronise() throws {
      guard let token = try command()?["arguments"]?["id"] else { return }
      try say([0xFF] + JSON.object(["return": token]).encoded + [0x0A])
    }
  }
}

/// Debian's guest agent as a process of this host. What would do something to the host is
/// forbidden to it.
struct RealAgent {
  static let forbidden = [
    "guest-shutdown", "guest-set-user-password", "guest-fsfreeze-freeze",
    "guest-fsfreeze-freeze-list", "guest-fsfreeze-thaw", "guest-fstrim", "guest-suspend-disk",
    "guest-suspend-ram", "guest-suspend-hybrid", "guest-set-time", "guest-set-vcpus",
    "guest-set-memory-blocks", "guest-file-open", "guest-ssh-add-authorized-keys",
    "guest-ssh-remove-authorized-keys",
  ]

  let directory: TemporaryDirectory
  let path: String
  private let process: LoggedProcess

  /// - Parameter path: of its socket; one in a directory of its own if left out.
  init(at path: String? = nil) throws {
    directory = try TemporaryDirectory()
    self.path = path ?? directory.path("agent")
    process = try LoggedProcess(
      Programs.guestAgent ?? "qemu-ga",
      [
        "--method", "unix-listen", "--path", self.path, "--statedir", directory.path,
        "--pidfile", directory.path("pid"), "--block-rpcs", Self.forbidden.joined(separator: ","),
      ])
    _ = try UnixSocket.connect(to: self.path, kind: .stream, offeredBy: process.handle)
  }
}
