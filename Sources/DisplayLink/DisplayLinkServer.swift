import DeviceModel
import Display
import LinuxSystem

/// What displays ask of a VMM. Called by `DisplayLinkServer.process`, on its
/// thread, without any lock of the link held.
public protocol DisplayLinkHandler: AnyObject {
  /// A key or the pointer. What one display holds down is released when it goes.
  func displayLink(received event: InputEvent)
  /// A viewer would like the guest's screen to have this size.
  func displayLink(wantsSize width: Int, height: Int)
  /// A viewer's clipboard changed.
  func displayLink(clipboard text: String)
  /// A viewer pressed a power button.
  func displayLink(power request: DisplayLinkMessage.PowerRequest)
  /// What a viewer's microphone heard, at `DisplayLinkMessage.microphoneRate`.
  func displayLink(recorded frames: [AudioFrame])
}

/// The VMM's end of the display link: hands the picture to any number of
/// displays and their input to the machine.
///
/// Packets and rules are those of `DisplayLinkMessage`. Nothing here blocks: what
/// a slow display has not taken waits, merged, in its own record; a display that
/// breaks the rules is disconnected.
///
/// One thread waits for `descriptor` and calls `process`; `publish…` and
/// `connect` may be called on any thread.
public final class DisplayLinkServer: Sendable {
  /// Readable when `process` has something to do. Nest it in the VMM's poller.
  public var descriptor: FileDescriptor { poller.descriptor }

  private let poller: Poller
  private let listener: UnixListener?
  private let adoption: EventDescriptor
  private let state: Guarded<State>

  static let listenerToken: UInt64 = 0
  static let adoptionToken: UInt64 = 1
  /// Packets taken from one display before the others get their turn.
  private static let fairShare = 64
  private static let maximumDisplays = 64

  struct State {
    var memories: [Scanout.Source: SharedMemory] = [:]
    var name: String
    var scanout: Scanout?
    var cursor = CursorImage.hidden
    var leds = KeyboardLEDs()
    var isRecording = false
    var displays: [UInt64: DisplayPeer] = [:]
    var adopted: [UnixSocket] = []
    var nextToken: UInt64 = 2

    /// The display whose microphone the guest hears.
    var speaker: UInt64? { displays.filter { $0.value.hasMicrophone }.keys.min() }
  }

  /// - Parameters:
  ///   - path: where displays connect; `nil` when only `connect` makes any.
  ///   - name: the desktop's name.
  ///   - memories: what surfaces lie in.
  /// - Throws: kind `addressInUse` when somebody listens at `path`.
  public init(path: String?, name: String, memories: [Scanout.Source: SharedMemory])
    throws(SystemError)
  {
    poller = try Poller()
    adoption = try EventDescriptor()
    try poller.add(adoption.descriptor, token: Self.adoptionToken)
    if let path {
      let listener = try UnixListener(at: path, kind: .packets)
      try listener.descriptor.setNonBlocking(true)
      try poller.add(listener.descriptor, token: Self.listenerToken)
      self.listener = listener
    } else {
      listener = nil
    }
    state = Guarded(State(memories: memories, name: name))
  }

  /// How many displays are connected.
  public var displayCount: Int { state.withLock { $0.displays.count } }

  /// Whether some display waits for damage: only then is it worth looking for.
  public var wantsDamage: Bool {
    state.withLock { state in state.displays.values.contains { $0.isAsking } }
  }

  /// Whether some display listens: only then is sound worth publishing.
  public var wantsSound: Bool {
    state.withLock { state in state.displays.values.contains { $0.listens } }
  }

  /// A connection for a display in this process.
  public func connect() throws(SystemError) -> UnixSocket {
    let (mine, theirs) = try UnixSocket.pair(kind: .packets)
    state.withLock { $0.adopted.append(mine) }
    adoption.signal()
    return theirs
  }

  // MARK: Publishing

  /// The picture is now this one (power-on, mode change). All of it is damaged.
  public func publish(_ scanout: Scanout) {
    publish { state in
      state.scanout = scanout
      for token in state.displays.keys { state.displays[token]?.surfaceChanged() }
    }
  }

  /// The surfaces of this source now lie in another memory. Publish a scan-out next.
  public func replaceMemory(_ source: Scanout.Source, with memory: SharedMemory) {
    state.withLock { state in
      state.memories[source] = memory
      for token in state.displays.keys { state.displays[token]?.memoryChanged(source) }
    }
  }

  /// These pixels of the published scan-out changed.
  public func publish(damage: Region) {
    guard !damage.isEmpty else { return }
    publish { state in
      for token in state.displays.keys { state.displays[token]?.damage.formUnion(damage) }
    }
  }

  public func publish(cursor: CursorImage) {
    publish { state in
      state.cursor = cursor
      for token in state.displays.keys { state.displays[token]?.pending.insert(.cursor) }
    }
  }

  public func publish(leds: KeyboardLEDs) {
    publish { state in
      guard state.leds != leds else { return }
      state.leds = leds
      for token in state.displays.keys { state.displays[token]?.pending.insert(.leds) }
    }
  }

  public func publish(name: String) {
    publish { state in
      state.name = name
      for token in state.displays.keys { state.displays[token]?.pending.insert(.name) }
    }
  }

  public func ringBell() {
    publish { state in
      for token in state.displays.keys { state.displays[token]?.pending.insert(.bell) }
    }
  }

  /// What the guest played in the time that has passed; none when it falls silent.
  public func publish(sound frames: [AudioFrame], rate: Int) {
    publish { state in
      for token in state.displays.keys { state.displays[token]?.play(frames, rate: rate) }
    }
  }

  /// Whether the guest records.
  public func publish(recording isRecording: Bool) {
    publish { state in
      guard state.isRecording != isRecording else { return }
      state.isRecording = isRecording
      for (token, display) in state.displays where display.hasMicrophone {
        state.displays[token]?.pending.insert(.recording)
      }
    }
  }

  private func publish(_ change: (inout State) -> Void) {
    state.withLock { state in
      change(&state)
      for token in state.displays.keys { flush(token, &state) }
    }
  }

  // MARK: Events

  /// Accepts displays, takes what they sent, and sends what they can take.
  public func process(_ handler: some DisplayLinkHandler) {
    guard let events = try? poller.wait(milliseconds: 0) else { return }
    for event in events {
      switch event.token {
      case Self.listenerToken: accept()
      case Self.adoptionToken: adopt()
      default: serve(event, handler)
      }
    }
  }

  private func accept() {
    while let socket = try? listener?.accept() {
      state.withLock { add(socket, &$0) }
    }
  }

  private func adopt() {
    adoption.drain()
    state.withLock { state in
      let sockets = state.adopted
      state.adopted = []
      for socket in sockets { add(socket, &state) }
    }
  }

  private func add(_ socket: UnixSocket, _ state: inout State) {
    guard state.displays.count < Self.maximumDisplays,
      (try? socket.descriptor.setNonBlocking(true)) != nil
    else { return }
    let token = state.nextToken
    state.nextToken += 1
    guard (try? poller.add(socket.descriptor, token: token)) != nil else { return }
    state.displays[token] = DisplayPeer(socket)
  }

  private func serve(_ event: Poller.Event, _ handler: some DisplayLinkHandler) {
    let actions = state.withLock { state in
      guard let display = state.displays[event.token] else { return [DisplayPeer.Action]() }
      var actions: [DisplayPeer.Action] = []
      if !event.interest.isDisjoint(with: [.readable, .hungUp, .failed]) {
        actions = receive(display.socket, event.token, &state)
      }
      flush(event.token, &state)
      return actions
    }
    for action in actions { action.perform(on: handler) }
  }

  /// Takes up to a fair share of packets. Disconnects at the end or on an error.
  private func receive(_ socket: UnixSocket, _ token: UInt64, _ state: inout State)
    -> [DisplayPeer.Action]
  {
    var actions: [DisplayPeer.Action] = []
    for _ in 0..<Self.fairShare {
      do {
        let packet = try socket.receive(
          capacity: DisplayLinkMessage.maximumSize, blocking: false)
        guard !packet.isEnd && !packet.isTruncated && packet.descriptors.isEmpty else {
          return actions + disconnect(token, &state)
        }
        let message = try DisplayLinkMessage(decoding: packet.bytes)
        if case .hello(let version, _) = message {
          guard welcome(version: version, token, &state) else {
            return actions + disconnect(token, &state)
          }
        } else if let action = try state.displays[token]?.receive(message) {
          if case .recorded = action, token != state.speaker { continue }
          actions.append(action)
        }
      } catch let error as SystemError where error.kind == .wouldBlock {
        return actions
      } catch {
        return actions + disconnect(token, &state)
      }
    }
    return actions
  }

  private func welcome(version: UInt16, _ token: UInt64, _ state: inout State) -> Bool {
    let isSpoken = (1...DisplayLinkMessage.version).contains(version)
    let answer = DisplayLinkMessage.hello(
      version: isSpoken ? version : DisplayLinkMessage.version, name: state.name)
    guard let display = state.displays[token],
      (try? display.socket.send(answer.encoded(), blocking: false)) != nil, isSpoken
    else { return false }
    state.displays[token]?.version = version
    state.displays[token]?.pending = [.leds, .cursor]
    state.displays[token]?.surfaceChanged()
    return true
  }

  private func disconnect(_ token: UInt64, _ state: inout State) -> [DisplayPeer.Action] {
    guard let display = state.displays.removeValue(forKey: token) else { return [] }
    poller.remove(display.socket.descriptor)
    return display.releases
  }

  /// Sends what is pending as far as the display takes it, and asks to be told
  /// when it takes more.
  private func flush(_ token: UInt64, _ state: inout State) {
    guard var display = state.displays[token], display.isWelcome else { return }
    let isComplete: Bool
    do {
      isComplete = try display.flush(state)
    } catch {
      // The end of the connection is also readable: `receive` cleans up.
      display.socket.shutDown()
      isComplete = true
    }
    if display.isBlocked == isComplete {
      display.isBlocked = !isComplete
      try? poller.modify(
        display.socket.descriptor, isComplete ? .readable : [.readable, .writable], token: token)
    }
    state.displays[token] = display
  }
}
