import DeviceModel
import Display
import LinuxSystem

/// A display's end of the display link.
///
/// Given a path, it connects whenever a VMM listens there: now, or when the path
/// appears, or again after a VMM went away (inotify tells; nothing is polled).
/// One thread waits for `descriptor` and calls `process`; `send` may be called on
/// any thread.
public final class DisplayLinkClient {
  public enum Event {
    /// A VMM answered; surface and the rest follow.
    case attached(name: String)
    /// The VMM went away. The last surface stays mapped for those who hold it.
    case detached
    /// All of a new picture; replaces the one before.
    case surface(DisplaySurface)
    /// Pixels of the last surface changed.
    case damage(Region)
    case cursor(CursorImage)
    case leds(KeyboardLEDs)
    case bell
    case name(String)
    /// Begins before there are frames, and ends by `detached`, too. Only to displays that
    /// listen.
    case sound(DisplayLinkMessage.SoundEvent)
    /// Whether the guest records. Only to displays that have a microphone.
    case recording(Bool)
  }

  /// Readable when `process` has something to do.
  public var descriptor: FileDescriptor { poller.descriptor }

  private let poller: Poller
  private let watch: PathWatch?
  private let outgoing: Outgoing
  private var socket: UnixSocket?
  private var isAttached = false
  private var isSounding = false
  /// The version that hello named, and the one that the next one does: an older VMM said
  /// that it speaks that.
  private var version = DisplayLinkMessage.version
  private var nextVersion = DisplayLinkMessage.version
  /// Told to each VMM.
  private var wishes = DisplayLinkMessage.listen(sound: false, microphone: false)
  private var mappings: [Scanout.Source: MemoryMapping] = [:]
  private var surface: DisplaySurface?
  private var sequence: UInt32 = 0

  private static let watchToken: UInt64 = 0
  fileprivate static let socketToken: UInt64 = 1
  private static let packetsPerTurn = 64

  /// Connects to `path` now or whenever a VMM listens there.
  public init(path: String) throws(SystemError) {
    poller = try Poller()
    outgoing = Outgoing(poller)
    let watch = try PathWatch(path)
    self.watch = watch
    try poller.add(watch.descriptor, token: Self.watchToken)
    connect()
  }

  /// Uses a connection that exists, and only that.
  public init(connected socket: UnixSocket) throws(SystemError) {
    poller = try Poller()
    outgoing = Outgoing(poller)
    watch = nil
    use(socket)
  }

  // MARK: Sending

  /// Sends input or a request. While no VMM is attached it goes nowhere; when the
  /// VMM does not take it, pointer motion and what a microphone heard are dropped and all
  /// else waits its turn.
  public func send(_ message: DisplayLinkMessage) {
    outgoing.send(message)
  }

  /// For other threads that send: the same as `send`.
  public var sender: @Sendable (DisplayLinkMessage) -> Void {
    let outgoing = outgoing
    return { outgoing.send($0) }
  }

  /// Whether the viewer wants sound, and has a microphone. Holds for all VMMs to come.
  public func listen(sound: Bool, microphone: Bool) {
    let wishes = DisplayLinkMessage.listen(sound: sound, microphone: microphone)
    guard wishes != self.wishes else { return }
    self.wishes = wishes
    outgoing.send(wishes)
  }

  /// Asks for the damage since the last one. Call once the last was taken.
  public func requestDamage() {
    guard surface != nil && isAttached else { return }
    outgoing.send(.pace(sequence: sequence))
  }

  // MARK: Events

  /// Takes what the VMM sent; connects and reconnects.
  public func process() -> [Event] {
    var events: [Event] = []
    guard let ready = try? poller.wait(milliseconds: 0) else { return [] }
    for item in ready where item.token == Self.socketToken {
      receive(into: &events)
      outgoing.flush()
    }
    if let watch, watch.drain(), socket == nil { connect() }
    return events
  }

  private func connect() {
    guard let watch, let socket = try? UnixSocket.connect(to: watch.path, kind: .packets)
    else {
      nextVersion = DisplayLinkMessage.version
      return
    }
    use(socket)
  }

  private func use(_ socket: UnixSocket) {
    version = nextVersion
    nextVersion = DisplayLinkMessage.version
    let hello = DisplayLinkMessage.hello(version: version, name: "")
    guard (try? socket.descriptor.setNonBlocking(true)) != nil,
      (try? socket.send(hello.encoded(), blocking: false)) != nil,
      (try? poller.add(socket.descriptor, token: Self.socketToken)) != nil
    else { return }
    self.socket = socket
  }

  private func receive(into events: inout [Event]) {
    guard let socket else { return }
    for _ in 0..<Self.packetsPerTurn {
      do {
        let packet = try socket.receive(
          capacity: DisplayLinkMessage.maximumSize, blocking: false)
        guard !packet.isEnd && !packet.isTruncated else { return detach(&events) }
        let message = try DisplayLinkMessage(decoding: packet.bytes)
        events += try take(message, packet.descriptors, socket)
      } catch let error as SystemError where error.kind == .wouldBlock {
        return
      } catch {
        return detach(&events)
      }
    }
  }

  private func take(
    _ message: DisplayLinkMessage, _ descriptors: [FileDescriptor], _ socket: UnixSocket
  ) throws -> [Event] {
    guard message.firstVersion <= version else {
      throw DisplayLinkError(
        .malformed, "display link: the VMM sent a message that version \(version) lacks")
    }
    switch message {
    case .hello(let theirs, let name):
      try settle(theirs)
      isAttached = true
      outgoing.use(socket, version: version)
      outgoing.send(wishes)
      return [.attached(name: name)]
    case .surface(let scanout):
      if let descriptor = descriptors.first {
        guard SharedMemory.keepsSize(descriptor) else {
          throw DisplayLinkError(
            .surface,
            "display link: a surface's memory may shrink (F_SEAL_SHRINK is not set on it)")
        }
        mappings[scanout.source] = try MemoryMapping(
          descriptor, offset: 0, size: Int(clamping: descriptor.size()), access: .readOnly)
      }
      guard let mapping = mappings[scanout.source] else {
        throw DisplayLinkError(.surface, "display link: a surface came without its memory")
      }
      let surface = try DisplaySurface(scanout, mapping)
      self.surface = surface
      sequence = 0
      return [.surface(surface)]
    case .damage(let sequence, let rects):
      guard let surface else { return [] }
      self.sequence = sequence
      let whole = Rect(x: 0, y: 0, width: surface.scanout.width, height: surface.scanout.height)
      return [.damage(Region(rects).intersection(whole))]
    case .cursor(let image): return [.cursor(image)]
    case .leds(let leds): return [.leds(leds)]
    case .bell: return [.bell]
    case .name(let name): return [.name(name)]
    case .audio(let event):
      try check(event)
      return [.sound(event)]
    case .recording(let isRecording): return [.recording(isRecording)]
    case .key, .pointer, .resize, .clipboard, .power, .pace, .listen, .microphone:
      throw DisplayLinkError(.malformed, "display link: the VMM sent a display's message")
    }
  }

  /// A VMM that does not speak this version says which it speaks.
  private func settle(_ theirs: UInt16) throws(DisplayLinkError) {
    guard theirs != version else { return }
    if (1..<version).contains(theirs) { nextVersion = theirs }
    throw DisplayLinkError(
      .version,
      "display link: the VMM speaks version \(theirs), this display \(version); update the "
        + "older one")
  }

  private func check(_ event: DisplayLinkMessage.SoundEvent) throws(DisplayLinkError) {
    switch event {
    case .begin: isSounding = true
    case .end: isSounding = false
    case .frames:
      guard isSounding else {
        throw DisplayLinkError(.malformed, "display link: sound without a beginning")
      }
    }
  }

  private func detach(_ events: inout [Event]) {
    if let socket { poller.remove(socket.descriptor) }
    outgoing.use(nil)
    socket = nil
    surface = nil
    mappings = [:]
    if isAttached { events.append(.detached) }
    isAttached = false
    isSounding = false
    // A new VMM may already listen; then nothing more would be reported.
    connect()
  }
}

/// The sending half, for any thread.
private final class Outgoing: Sendable {
  private struct State {
    var socket: UnixSocket?
    var version = DisplayLinkMessage.version
    var backlog: [DisplayLinkMessage] = []
  }

  private static let maximumBacklog = 1024
  private let poller: Poller
  private let state = Guarded(State())

  init(_ poller: Poller) {
    self.poller = poller
  }

  func use(_ socket: UnixSocket?, version: UInt16 = DisplayLinkMessage.version) {
    state.withLock { $0 = State(socket: socket, version: version) }
  }

  func send(_ message: DisplayLinkMessage) {
    state.withLock { state in
      guard let socket = state.socket, message.firstVersion <= state.version else { return }
      if state.backlog.isEmpty {
        if Self.sendNow(message, socket) { return }
        try? poller.modify(
          socket.descriptor, [.readable, .writable], token: DisplayLinkClient.socketToken)
      }
      // What was said while nobody took it is over.
      if case .microphone = message { return }
      if let last = state.backlog.last, Self.supersedes(message, last) {
        state.backlog[state.backlog.count - 1] = message
      } else if state.backlog.count < Self.maximumBacklog {
        state.backlog.append(message)
      }
    }
  }

  func flush() {
    state.withLock { state in
      guard let socket = state.socket, !state.backlog.isEmpty else { return }
      while let first = state.backlog.first, Self.sendNow(first, socket) {
        state.backlog.removeFirst()
      }
      guard state.backlog.isEmpty else { return }
      try? poller.modify(socket.descriptor, .readable, token: DisplayLinkClient.socketToken)
    }
  }

  /// `false` when the queue is full. A broken connection takes everything: the
  /// receiving side notices.
  private static func sendNow(_ message: DisplayLinkMessage, _ socket: UnixSocket) -> Bool {
    do {
      try socket.send(message.encoded(), blocking: false)
      return true
    } catch {
      return error.kind != .wouldBlock
    }
  }

  /// Of two pointer positions with the same buttons only the later counts.
  private static func supersedes(_ later: DisplayLinkMessage, _ earlier: DisplayLinkMessage)
    -> Bool
  {
    guard case .pointer(_, _, let now, 0, 0) = later,
      case .pointer(_, _, let before, 0, 0) = earlier
    else { return false }
    return now == before
  }
}
