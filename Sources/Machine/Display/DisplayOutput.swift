import DeviceModel
import Devices
import Display
import DisplayLink
import LinuxSystem

/// A machine's screen for displays: watches the picture on a thread of its own
/// while some display waits for changes, and takes displays' input.
public final class DisplayOutput: @unchecked Sendable {
  // SAFETY: `schedule` and `rest` belong to the thread, `shown` and `hold` to `looking`; the
  // adapter is used under the board's lock; all else is immutable or thread-safe itself.
  private let machine: Machine
  private let adapter: any DisplayAdapter
  private let link: DisplayLinkServer
  private let sound: LinkSound
  private let memories: [Scanout.Source: MappedMemory]
  private let poller: Poller
  private let ending: EventDescriptor
  private var schedule = PollSchedule()
  /// `nil` where the host cannot tell of writes.
  private let rest: RestingScreen?
  private var thread: Thread?
  /// Held while the picture is looked at, so that damage is published in order.
  private let looking = Lock()
  private var shown: Scanout?
  private var hold = PictureHold()

  /// - Parameter path: where displays connect; `nil` for displays of this process
  ///   only, which call `connect`.
  /// - Throws: `MachineError` when the machine has no display adapter;
  ///   `SystemError` of kind `addressInUse` when somebody else listens at `path`.
  public init(of machine: Machine, path: String?) throws {
    guard let adapter = machine.board.display, let video = machine.board.videoMemory,
      let surface = machine.board.renderedSurface
    else { throw MachineError(.configuration, "a machine without VGA has nothing to display") }
    self.machine = machine
    self.adapter = adapter
    var memories = [Scanout.Source.videoMemory: video, .rendered: surface]
    memories[.graphicsMemory] = machine.board.graphicsMemory
    self.memories = memories
    link = try DisplayLinkServer(
      path: path, name: machine.configuration.name, memories: memories.mapValues(\.shared))
    sound = LinkSound(link)
    poller = try Poller()
    ending = try EventDescriptor()
    try poller.add(link.descriptor, token: 0)
    try poller.add(ending.descriptor, token: 1)
    rest = try? RestingScreen(machine.board, adapter, video)
    for descriptor in rest?.descriptors ?? [] { try poller.add(descriptor, token: 2) }
    machine.board.lock.withLock {
      machine.board.setLEDObserver { [link] in link.publish(leds: $0) }
      machine.board.tone.onTone = { [link] in if $0 != nil { link.ringBell() } }
      link.publish(leds: machine.board.leds)
      connectSound()
      if let graphics = machine.board.graphics {
        graphics.onCursor = { [link] in link.publish(cursor: $0) }
        link.publish(cursor: graphics.cursor)
      }
    }
    // Nobody looks before somebody wants to see it: a picture takes time and memory.
    let output = Unsynchronized(Weak(self))
    let poller = poller
    let rest = Unsynchronized(rest)
    thread = try Thread(name: "display") {
      defer { _ = rest.value?.end() }
      while let timeout = output.value.object?.timeout() {
        guard let events = try? poller.wait(milliseconds: timeout) else { return }
        output.value.object?.handle(events)
      }
    }
  }

  deinit {
    ending.signal()
    thread?.join()
    machine.board.lock.withLock {
      machine.board.setLEDObserver { _ in }
      machine.board.tone.onTone = { _ in }
      machine.board.graphics?.onCursor = nil
      machine.board.audio.remove(sound)
      machine.board.microphone.onRecording = { _ in }
    }
  }

  /// Device lock held.
  private func connectSound() {
    guard machine.configuration.audio.card != .none else { return }
    machine.board.audio.add(sound)
    machine.board.microphone.onRecording = { [link] in link.publish(recording: $0) }
    link.publish(recording: machine.board.microphone.isRecording)
  }

  /// A connection for a display in this process.
  public func connect() throws(SystemError) -> UnixSocket { try link.connect() }

  /// Whether some display listens to the machine.
  package var isHeard: Bool { link.wantsSound }

  /// How many displays are connected.
  public var displayCount: Int { link.displayCount }

  /// Whether nobody looks at the picture until the guest does something to it.
  package var isResting: Bool { rest?.isResting == true }

  private func handle(_ events: [Poller.Event]) {
    if rest?.end() == true { schedule.changeBegan(at: MonotonicClock.now) }
    if !events.isEmpty {
      // A display that comes now should not be shown how it looked when the last left.
      if schedule.isStale(at: MonotonicClock.now) { look() }
      link.process(self)
    }
    let now = MonotonicClock.now
    // A card that tells of whole pictures is looked at when it does, and only then.
    let tells = looking.withLock { shown?.source == .graphicsMemory }
    if link.wantsDamage && (tells || schedule.next(after: now) <= now) {
      let seen = look(resting: tells || schedule.isStill(at: now), holding: !tells)
      schedule.looked(at: now, seen)
    }
  }

  /// Until the next look, or for ever while nobody waits for one.
  private func timeout() -> Int32 {
    guard link.wantsDamage, !isResting else { return -1 }
    let now = MonotonicClock.now
    let next = schedule.next(after: now)
    return next <= now ? 0 : Int32(clamping: (next - now + 999_999) / 1_000_000)
  }

  /// Brings the picture up to date and tells displays. Any thread.
  ///
  /// - Parameters:
  ///   - resting: let the picture rest if it has not changed; display thread.
  ///   - holding: keep back a picture that is being drawn; display thread.
  @discardableResult
  private func look(resting: Bool = false, holding: Bool = false) -> PollSchedule.Sight {
    looking.withLock {
      let update = machine.board.lock.withLock { () -> ScanoutUpdate in
        let update = refresh(draining: true)
        guard resting, !changes(update), rest?.begin(update.scanout) == true else {
          return update
        }
        // What fell between the look and the watch.
        let late = refresh(draining: false)
        if changes(late) { rest?.abandon() }
        return late
      }
      if update.scanout != shown {
        shown = update.scanout
        _ = hold.release()
        link.publish(update.scanout)
        return .change
      }
      let damage = hold.take(
        Region(update.damage), area: update.scanout.width * update.scanout.height,
        at: MonotonicClock.now)
      let told = holding ? damage : damage.union(hold.release())
      if !told.isEmpty { link.publish(damage: told) }
      return hold.isHolding ? .drawing : told.isEmpty ? .stillness : .change
    }
  }

  private func changes(_ update: ScanoutUpdate) -> Bool {
    update.scanout != shown || !update.damage.isEmpty
  }

  /// Device lock held.
  private func refresh(draining: Bool) -> ScanoutUpdate {
    if draining { machine.board.drainCoalescedWrites() }
    let update = adapter.refresh(dirtyVideoMemory: machine.board.takeDirtyVideoMemory())
    if update.scanout != shown {
      machine.board.keyboardController.setScanoutSize(
        width: update.scanout.width, height: update.scanout.height)
    }
    return update
  }

  /// The picture at this moment.
  public func screenshot() throws(MachineError) -> Screenshot {
    look()
    let scanout = looking.withLock { shown }
    guard let scanout, let memory = memories[scanout.source] else {
      throw MachineError(.state, "there is no picture yet")
    }
    return try Screenshot(scanout, in: UnsafeRawBufferPointer(memory.bytes))
  }
}

extension DisplayOutput: DisplayLinkHandler {
  public func displayLink(recorded frames: [AudioFrame]) {
    machine.board.lock.withLock { machine.board.microphone.hear(frames) }
  }

  public func displayLink(received event: InputEvent) {
    machine.send(event)
    schedule.inputArrived(at: MonotonicClock.now)
  }

  /// The virtio card's driver is told, and the guest chooses. There is no way to tell a
  /// running guest through a standard VGA, whose EDID is read when a driver starts.
  public func displayLink(wantsSize width: Int, height: Int) {
    machine.board.lock.withLock {
      machine.board.vga?.resize(width: width, height: height)
      machine.board.graphics?.resize(width: width, height: height)
    }
  }

  /// A PC has no clipboard; that takes an agent in the guest.
  public func displayLink(clipboard text: String) {}

  public func displayLink(power request: DisplayLinkMessage.PowerRequest) {
    // The machine may be over already; the display sees its end anyway.
    switch request {
    case .shutdown: try? machine.pressPowerButton()
    case .reboot, .reset: try? machine.reset()
    }
  }
}
