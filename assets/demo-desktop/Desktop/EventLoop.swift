import CMachine

/// The one thread: sleeps until something happens, sees to it, paints what changed.
final class EventLoop {
  private let serial: SerialPort
  private let configuration: FirmwareConfiguration
  private let controller: KeyboardController
  private let session: Session
  private let power: Power
  private let absolutePointer: AbsolutePointer?
  private let clock = RealTimeClock()
  private var timer = IntervalTimer()
  private var keys: KeyDecoder
  private var mouse = MouseDecoder()
  private var lights: UInt8 = 0
  private var scene: Scene?
  private var ticks = 0
  private var divider = 1
  private var interruptCount = 0
  private var beepTicks = 0
  private var lastUserCheck: UInt64?

  /// The set 1 code of the Wake key of ACPI keyboards, which the host presses when a
  /// desktop was given to somebody.
  private static let wakeKey: UInt16 = 0xE063
  /// Time stamps between looking for another user: about a second on any PC.
  private static let userCheckInterval: UInt64 = 1 << 31

  init(
    serial: SerialPort, configuration: FirmwareConfiguration, controller: KeyboardController,
    session: Session, power: Power, absolutePointer: AbsolutePointer?
  ) {
    keys = KeyDecoder(Keymap(configuration.layout))
    self.serial = serial
    self.configuration = configuration
    self.controller = controller
    self.session = session
    self.power = power
    self.absolutePointer = absolutePointer
    mouse.hasWheel = controller.hasWheel
    timer.run(rate: 0)
    clock.startMinuteAlarm()
    lights = keys.locks
  }

  func run() -> Never {
    while true {
      session.present()
      controller.setLights(keys.locks)
      serial.flush()
      if let decision = session.decision { leave(decision) }
      if scene?.rate == .unlimited {
        handle(Interrupts.take())
        tickScene()
      } else {
        handle(Interrupts.wait())
      }
    }
  }

  private func handle(_ pending: Interrupts) {
    if !pending.isDisjoint(with: [.keyboard, .mouse]) { readInput() }
    if pending.contains(.timer) { timerTicked() }
    if pending.contains(.serial) { serial.receive().forEach { obey($0) } }
    if pending.contains(.clock) {
      clock.acknowledge()
      session.show(clock.now())
      checkUser()
    }
    if pending.contains(.acpi), power.takePowerButton() {
      serial.report("power button")
      session.announce(.shutDown)
    }
  }

  /// Whether a look at whose desktop this is may come now: not while a scene is
  /// measured.
  private func checkUser() {
    if scene == nil { readUser() }
  }

  /// Looks whose desktop it is, and what that user's keyboard says.
  private func readUser() {
    lastUserCheck = time_stamp()
    let layout = configuration.layout
    if layout != keys.keymap.layout {
      keys.keymap = Keymap(layout)
      serial.report("keyboard \(layout.name)")
    }
    let user = configuration.user
    guard session.show(user: user, on: configuration.desktop) else { return }
    serial.report(Array("user ".utf8) + Decoding.bytes(user))
  }

  /// Somebody is there: before the input is obeyed, since it may be a new user's.
  private func inputArrived() {
    let isDue = lastUserCheck.map { time_stamp() &- $0 >= Self.userCheckInterval }
    if isDue ?? true { checkUser() }
  }

  // MARK: Input

  private func readInput() {
    var hasMouse = false
    controller.drain(
      keyboard: { byte in
        guard let event = keys.decode(byte) else { return }
        if event.code == Self.wakeKey, event.isDown { readUser() } else { inputArrived() }
        key(event)
      },
      mouse: { byte in
        hasMouse = true
        guard let report = mouse.decode(byte) else { return }
        inputArrived()
        if absolutePointer == nil { session.pointer(report) }
      })
    if hasMouse { absolutePointer?.poll { session.pointer($0) } }
  }

  private func key(_ event: KeyEvent) {
    scene?.key(event)
    let locks = keys.locks
    if locks != lights {
      lights = locks
      serial.report("leds \(locks)")
    }
    if !event.isRepeat {
      serial.report("key \(String(event.code, radix: 16)) \(event.isDown ? "down" : "up")")
    }
    if event.isDown, case .escape = event.action, scene != nil { return play([]) }
    session.key(event)
    session.terminal.takeRequests().forEach { fulfil($0) }
  }

  private func fulfil(_ request: Request) {
    switch request {
    case .scene(let text): play(text)
    case .shutDown: session.announce(.shutDown)
    case .restart: session.announce(.restart)
    case .beep:
      Speaker.start(frequency: 880)
      beepTicks = 4
      updateTimer()
    }
  }

  /// Commands from the serial line; README.md lists them.
  private func obey(_ line: [UInt8]) {
    let text = Decoding.text(line)
    let words = text.split(separator: 0x20).map { Array($0) }
    guard let command = words.first else { return }
    if command == "scene".text {
      play(Text(words.dropFirst().joined(separator: [0x20])))
    } else if command == "text".text {
      for line in session.editor.text.split(separator: 10, omittingEmptySubsequences: false) {
        serial.report(Array("text ".utf8) + Decoding.bytes(Array(line)))
      }
      serial.report("end")
    } else if command == "clear".text {
      session.editor.clear()
      serial.report("cleared")
    } else if command == "pointer".text {
      serial.report("pointer \(session.screen.pointer.x) \(session.screen.pointer.y)")
    } else if command == "shutdown".text {
      session.announce(.shutDown)
    } else if command == "restart".text {
      session.announce(.restart)
    } else {
      serial.report("unknown command")
    }
  }

  // MARK: Scenes and time

  /// Starts the named scene; an empty or unknown name returns to the desktop.
  func play(_ text: Text) {
    scene?.stop()
    scene = Scene.make(text, session)
    ticks = 0
    scene?.start()
    updateTimer()
    let name = scene == nil ? "none".text : text
    serial.report(Array("scene ".utf8) + Decoding.bytes(name))
  }

  private func updateTimer() {
    var rate = beepTicks > 0 ? 20 : 0
    divider = 1
    if case .perSecond(let wanted) = scene?.rate {
      // The timer cannot be slower than 19 Hz: count its ticks instead.
      divider = (18 + wanted) / wanted
      rate = wanted * divider
    }
    timer.run(rate: rate)
  }

  private func timerTicked() {
    if beepTicks > 0 {
      beepTicks -= 1
      if beepTicks == 0 {
        Speaker.stop()
        updateTimer()
      }
    }
    interruptCount &+= 1
    if scene != nil, interruptCount % divider == 0 { tickScene() }
  }

  private func tickScene() {
    scene?.tick(ticks)
    ticks &+= 1
  }

  // MARK: Leaving

  private func leave(_ decision: Panel.Button) -> Never {
    switch decision {
    case .shutDown:
      serial.report("shutdown")
      serial.flush()
      power.shutDown()
    case .restart:
      serial.report("restart")
      serial.flush()
      power.restart(controller)
    }
    serial.report("still here")
    serial.flush()
    while true { _ = Interrupts.wait() }
  }
}
