import DeviceModel
import Display
import LinuxSystem

/// What a VMM keeps about one connected display.
struct DisplayPeer {
  struct Pending: OptionSet {
    let rawValue: Int
    static let surface = Pending(rawValue: 1)
    static let cursor = Pending(rawValue: 2)
    static let leds = Pending(rawValue: 4)
    static let name = Pending(rawValue: 8)
    static let bell = Pending(rawValue: 16)
    static let recording = Pending(rawValue: 32)
  }

  /// Something to do for the machine, outside of the link's lock.
  enum Action {
    case input(InputEvent)
    case size(Int, Int)
    case clipboard(String)
    case power(DisplayLinkMessage.PowerRequest)
    case recorded([AudioFrame])

    func perform(on handler: some DisplayLinkHandler) {
      switch self {
      case .input(let event): handler.displayLink(received: event)
      case .size(let width, let height): handler.displayLink(wantsSize: width, height: height)
      case .clipboard(let text): handler.displayLink(clipboard: text)
      case .power(let request): handler.displayLink(power: request)
      case .recorded(let frames): handler.displayLink(recorded: frames)
      }
    }
  }

  let socket: UnixSocket
  /// The version of the link that it and this side speak, once it said hello.
  var version: UInt16?
  /// Its queue was full at the last attempt.
  var isBlocked = false
  var pending: Pending = []
  /// What it has not been told, in pixels of the published scan-out.
  var damage = Region()
  private(set) var listens = false
  private(set) var hasMicrophone = false
  private var allowance = MicrophoneAllowance(at: MonotonicClock.now)
  private(set) var sound = SoundQueue(limit: DisplayLinkMessage.maximumWaitingFrames)

  private var sequence: UInt32 = 0
  private var hasCredit = false
  private var toldMemories: Set<Scanout.Source> = []
  private var heldKeys: Set<KeyCode> = []
  private var pointer: (x: UInt16, y: UInt16, buttons: PointerButtons) = (0, 0, [])

  init(_ socket: UnixSocket) {
    self.socket = socket
  }

  var isWelcome: Bool { version != nil }

  /// Whether it asked for damage and got none yet.
  var isAsking: Bool { isWelcome && hasCredit }

  mutating func surfaceChanged() {
    pending.insert(.surface)
    damage.removeAll()
    hasCredit = false
    sequence = 0
  }

  mutating func memoryChanged(_ source: Scanout.Source) {
    toldMemories.remove(source)
  }

  /// What the guest plays from now on; no frames when it falls silent.
  mutating func play(_ frames: [AudioFrame], rate: Int) {
    guard listens else { return }
    if frames.isEmpty { sound.end() } else { sound.append(frames, rate: rate) }
  }

  // MARK: To the display

  /// Sends what is pending; `false` when the queue is full and something is left.
  mutating func flush(_ state: DisplayLinkServer.State) throws(SystemError) -> Bool {
    do {
      try sendState(state)
      try sendSound()
      try sendDamage()
      return true
    } catch {
      guard error.kind == .wouldBlock else { throw error }
      return false
    }
  }

  private mutating func sendState(_ state: DisplayLinkServer.State) throws(SystemError) {
    if pending.contains(.surface), let scanout = state.scanout {
      var descriptors: [FileDescriptor] = []
      if !toldMemories.contains(scanout.source), let memory = state.memories[scanout.source] {
        descriptors = [memory.descriptor]
      }
      try send(.surface(scanout), descriptors)
      toldMemories.insert(scanout.source)
      pending.remove(.surface)
    }
    try send(.cursor(state.cursor), ifPending: .cursor)
    try send(.leds(state.leds), ifPending: .leds)
    try send(.name(state.name), ifPending: .name)
    try send(.bell, ifPending: .bell)
    try send(.recording(state.isRecording), ifPending: .recording)
  }

  private mutating func sendSound() throws(SystemError) {
    while let item = sound.next(atMost: DisplayLinkMessage.maximumFrames) {
      switch item {
      case .begin(let rate): try send(.audio(.begin(rate: rate)))
      case .end: try send(.audio(.end))
      case .frames(let frames, let lost):
        try send(.audio(.frames(Array(frames), lost: UInt32(clamping: lost))))
      }
      sound.take(item)
    }
  }

  private mutating func sendDamage() throws(SystemError) {
    guard hasCredit && !damage.isEmpty && !pending.contains(.surface) else { return }
    let rects = damage.simplified(toRects: DisplayLinkMessage.maximumRects).rects
    try send(.damage(sequence: sequence &+ 1, rects))
    sequence &+= 1
    damage.removeAll()
    hasCredit = false
  }

  private mutating func send(_ message: DisplayLinkMessage, ifPending item: Pending)
    throws(SystemError)
  {
    guard pending.contains(item) else { return }
    try send(message)
    pending.remove(item)
  }

  private func send(_ message: DisplayLinkMessage, _ descriptors: [FileDescriptor] = [])
    throws(SystemError)
  {
    try socket.send(message.encoded(), descriptors: descriptors, blocking: false)
  }

  // MARK: From the display

  /// Takes a message other than hello; returns what the machine has to do.
  ///
  /// - Throws: when a display may not send this, or not yet.
  mutating func receive(_ message: DisplayLinkMessage) throws(DisplayLinkError) -> Action? {
    guard let version else {
      throw DisplayLinkError(.malformed, "display link: a display did not say hello first")
    }
    guard message.firstVersion <= version else {
      throw DisplayLinkError(
        .malformed, "display link: a display sent a message that version \(version) lacks")
    }
    switch message {
    case .key(let code, let pressed):
      if pressed { heldKeys.insert(code) } else { heldKeys.remove(code) }
      return .input(.key(code, pressed: pressed))
    case .pointer(let x, let y, let buttons, let wheel, let horizontalWheel):
      pointer = (x, y, buttons)
      guard wheel != 0 || horizontalWheel != 0 else {
        return .input(.absolutePointer(x: x, y: y, buttons: buttons))
      }
      return .input(
        .relativePointer(
          x: 0, y: 0, wheel: Int(wheel), horizontalWheel: Int(horizontalWheel),
          buttons: buttons))
    case .resize(let width, let height): return .size(width, height)
    case .clipboard(let text): return .clipboard(text)
    case .power(let request): return .power(request)
    case .pace(let taken):
      // One that crossed a `surface` on its way names an older sequence.
      if taken == sequence { hasCredit = true }
      return nil
    case .listen(let sound, let microphone):
      listens = sound
      hasMicrophone = microphone
      if !sound { self.sound.clear() }
      if microphone { pending.insert(.recording) } else { pending.remove(.recording) }
      return nil
    case .microphone(let frames):
      // What comes faster is a flood, or was heard long ago.
      guard hasMicrophone, allowance.take(frames.count, at: MonotonicClock.now) else {
        return nil
      }
      return .recorded(frames)
    case .hello, .surface, .damage, .cursor, .leds, .bell, .name, .audio, .recording:
      throw DisplayLinkError(.malformed, "display link: a display sent a VMM's message")
    }
  }

  /// What lets go of everything that this display holds down.
  var releases: [Action] {
    var actions = heldKeys.sorted { $0.rawValue < $1.rawValue }
      .map { Action.input(.key($0, pressed: false)) }
    if !pointer.buttons.isEmpty {
      actions.append(.input(.absolutePointer(x: pointer.x, y: pointer.y, buttons: [])))
    }
    return actions
  }
}
