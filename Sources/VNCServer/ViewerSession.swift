import Display
import LinuxSystem

/// How a viewer is served.
public struct ViewerConfiguration: Sendable {
  /// The desktop's name, as a viewer's title shows it.
  public var name = "Carrel"
  /// What keysyms mean, from viewers that do not send scan codes.
  public var layout = KeyboardLayout.enUS
  /// Power requests go to the machine over the display link, not to the owner.
  public var machineTakesPower = false
  /// How long a viewer may take for its handshake, in nanoseconds; `nil` where the
  /// owner sees to that.
  public var handshakeTime: UInt64?
  /// How long a new viewer waits for the picture of a desktop that is attached before it
  /// gets a status screen, in nanoseconds. A viewer that cannot be resized keeps the size
  /// it gets then.
  public var introductionTime: UInt64 = 400_000_000
  /// How long the reason for the end can be read at least, and at most where nobody presses a
  /// key, in nanoseconds.
  public var farewellTime: ClosedRange<UInt64> = 2_000_000_000...30_000_000_000
  /// How long a picture that was taken while the viewer was busy is as good as a new one,
  /// in nanoseconds.
  public var freshness: UInt64 = 25_000_000

  public init() {}
}

/// What a session tells its owner. On the session's own threads.
public enum ViewerEvent: Hashable, Sendable {
  /// The VMM answered.
  case attached
  /// The VMM went away; the viewer sees a status screen until it is back.
  case waiting
  /// The viewer asked for this.
  case power(DisplayLinkMessage.PowerRequest)
  /// The end: the viewer is gone, and nothing more comes.
  case closed(String)
}

/// One viewer on a connected stream socket: RFB to it, the display link to a VMM.
///
/// Two threads. One reads the viewer: keys and pointer go straight to the VMM,
/// whatever the other does. The other runs libvncserver: it takes the VMM's
/// picture, compares, encodes and sends, and may wait for the viewer's socket.
/// The session outlives VMMs; it ends with the viewer.
public final class ViewerSession: Sendable {
  enum Command: Sendable {
    case message(ClientMessage)
    case attach(path: String)
    case use(UnixSocket)
    case detach
    case status(percent: Int?, text: String)
    case rename(String)
    case end(String)
    /// Somebody pressed a key or a button after the end.
    case dismissed
    case inputEnded(String)
  }

  private let commands: Mailbox<Command>
  private let router: InputRouter
  private let threads: Guarded<[Thread]>

  /// Starts serving the viewer on `client`.
  ///
  /// - Parameters:
  ///   - link: a connection of the display link, where there is one from the start.
  ///   - onEvent: called from the session's threads; must not block.
  public init(
    client: FileDescriptor, configuration: ViewerConfiguration, link: UnixSocket? = nil,
    onEvent: @escaping @Sendable (ViewerEvent) -> Void
  ) throws(SystemError) {
    Signal.pipe.ignore()
    try ViewerSocket.interruption.makeInterrupting()
    let commands = try Mailbox<Command>()
    self.commands = commands
    if let link { commands.post(.use(link)) }
    let viewer = try ViewerSocket(client)
    let router = InputRouter(layout: configuration.layout)
    self.router = router
    let output = try Thread(name: "encoder") {
      ViewerSocket.allowInterruption()
      do {
        let output = try ViewerOutput(viewer, configuration, commands, router, onEvent)
        onEvent(.closed(output.run()))
      } catch {
        onEvent(.closed("\(error)"))
      }
      viewer.shutDown()
    }
    let input = try Thread(name: "viewer input") {
      let reason = ViewerInput(viewer, router, commands, output).run()
      commands.post(.inputEnded(reason))
      viewer.abandon(output)
    }
    threads = Guarded([output, input])
  }

  /// Shows the desktop whose display link is at `path`, now or when it appears.
  public func attach(path: String) { commands.post(.attach(path: path)) }

  /// What keysyms mean from the next one on.
  public func setLayout(_ layout: KeyboardLayout) { router.setLayout(layout) }

  /// Leaves the desktop; the viewer sees the status screen.
  public func detach() { commands.post(.detach) }

  /// What the status screen says while there is no picture. `percent` draws a bar.
  public func show(status text: String, percent: Int?) {
    commands.post(.status(percent: percent, text: text))
  }

  public func rename(_ name: String) { commands.post(.rename(name)) }

  /// Shows `text` until somebody at the viewer presses a key, or it was there long enough, then
  /// closes the connection.
  public func end(_ text: String) { commands.post(.end(text)) }

  /// Waits until both threads have ended. Call once, after `closed`.
  public func join() {
    let threads = threads.withLock { threads in
      defer { threads = [] }
      return threads
    }
    for thread in threads { thread.join() }
  }
}
