import DeviceModel
import Display
import DisplayLink
import LinuxSystem

/// The thread that shows a desktop to a viewer: link events in, RFB out.
///
/// Everything here belongs to that thread. It waits for one of: a message of the
/// viewer, something from the VMM, room in the viewer's socket, a deadline.
final class ViewerOutput {
  private static let commandToken: UInt64 = 0
  private static let linkToken: UInt64 = 1
  private static let viewerToken: UInt64 = 2
  /// How long a picture stands still before what went out lossy is sent again.
  private static let stillness: UInt64 = 250_000_000
  private static let defaultSize = (width: 1024, height: 768)

  private let viewer: ViewerSocket
  private let configuration: ViewerConfiguration
  private let commands: Mailbox<ViewerSession.Command>
  private let router: InputRouter
  private let report: (ViewerEvent) -> Void
  private let poller: Poller

  // The VMM.
  private var link: DisplayLinkClient?
  private var isAttached = false
  private var hasAsked = false
  private var leds = KeyboardLEDs()
  private var cursor = CursorImage.hidden

  // The picture.
  private var source: any PixelSource
  private var surface: DisplaySurface?
  private var fitted: FittedPicture?
  private var status = StatusText()
  /// Nothing is drawn before it can be seen: most viewers never see it.
  private var needsStatusScreen = true
  private var frame: Frame
  private var damage: Region
  private var lossy = Region()
  private var copies = CopyDetector()
  private var lastChange: UInt64 = 0
  /// What was brought up to date in the frame while the viewer was busy, and when.
  private var captured: (region: Region, time: UInt64)?

  // The viewer.
  private var client: LibVNCClient?
  private var extensions: ViewerExtensions
  private var sound = SoundSender()
  private var pacer = UpdatePacer()
  private var continuous: Rect?
  /// What was asked for whether it changed or not, and has not been sent yet.
  private var demanded = Region()
  private var heldInit: (message: [UInt8], deadline: UInt64)?
  private var isWatchingSocket = false
  private var ending: String?
  /// From when on a key ends it, and when it ends without.
  private var farewell: ClosedRange<UInt64>?
  private var handshakeDeadline: UInt64?
  private var isFinished = false

  init(
    _ viewer: ViewerSocket, _ configuration: ViewerConfiguration,
    _ commands: Mailbox<ViewerSession.Command>, _ router: InputRouter,
    _ report: @escaping (ViewerEvent) -> Void
  ) throws {
    self.viewer = viewer
    self.configuration = configuration
    self.commands = commands
    self.router = router
    self.report = report
    poller = try Poller()
    try poller.add(commands.descriptor, token: Self.commandToken)
    handshakeDeadline = configuration.handshakeTime.map { MonotonicClock.now + $0 }
    status.name = configuration.name
    extensions = ViewerExtensions(name: configuration.name)
    frame = Frame(width: Self.defaultSize.width, height: Self.defaultSize.height)
    source = FrameSource(frame)
    damage = Region()
  }

  // MARK: The loop

  /// Serves until the end; returns why it came.
  func run() -> String {
    guard viewer.write(Array("RFB 003.008\n".utf8)) else { return "the viewer disconnected" }
    while !isFinished {
      guard let events = try? poller.wait(milliseconds: timeout) else {
        return "cannot wait for events"
      }
      for event in events where event.token == Self.linkToken { takeLink() }
      for command in commands.takeAll() { take(command) }
      if !isFinished { advance() }
      viewer.expect(within: owed)
    }
    router.connect(nil)
    return reason
  }

  /// Why it ended: the reading thread may know better than a write that failed.
  private var reason: String {
    if viewer.isStalled { return "the viewer stopped reading" }
    if farewell == nil {
      for case .inputEnded(let reason) in commands.takeAll() { return reason }
    }
    return ending ?? "the viewer disconnected"
  }

  private var timeout: Int32 {
    let now = MonotonicClock.now
    var deadlines: [UInt64] = []
    if let held = heldInit { deadlines.append(held.deadline) }
    if let farewell { deadlines.append(farewell.upperBound) }
    if let handshakeDeadline { deadlines.append(handshakeDeadline) }
    // Once that is over, what is still missing announces itself.
    if !lossy.isEmpty && now < lastChange + Self.stillness {
      deadlines.append(lastChange + Self.stillness)
    }
    if let retry = sound.retry(after: now) { deadlines.append(retry) }
    guard let next = deadlines.min() else { return -1 }
    return next <= now ? 0 : Int32(clamping: (next - now) / 1_000_000 + 1)
  }

  private func finish(_ reason: String) {
    ending = ending ?? reason
    isFinished = true
  }

  private func take(_ command: ViewerSession.Command) {
    switch command {
    case .message(let message): take(message)
    case .attach(let path):
      detach()
      do {
        use(try DisplayLinkClient(path: path))
      } catch {
        show(status: "This desktop cannot be reached: \(error)", percent: nil)
      }
    case .use(let socket):
      detach()
      if let client = try? DisplayLinkClient(connected: socket) { use(client) }
    case .detach: detach()
    case .status(let percent, let text): show(status: text, percent: percent)
    case .rename(let name): rename(name)
    case .end(let text):
      detach()
      let (now, time) = (MonotonicClock.now, configuration.farewellTime)
      let hint = time.lowerBound < time.upperBound ? " Press a key to close this." : ""
      show(status: text + hint, percent: nil)
      farewell = now + time.lowerBound...now + time.upperBound
      ending = text
      router.awaitDismissal()
    case .dismissed:
      // A key that was meant for the desktop closes nothing.
      if let farewell, MonotonicClock.now >= farewell.lowerBound { finish("ended") }
    case .inputEnded(let reason): finish(reason)
    }
  }

  // MARK: The VMM

  private func use(_ client: DisplayLinkClient) {
    link = client
    client.listen(sound: sound.isEnabled, microphone: false)
    try? poller.add(client.descriptor, token: Self.linkToken)
    takeLink()
  }

  private func detach() {
    guard let link else { return }
    poller.remove(link.descriptor)
    self.link = nil
    forgetMachine()
    status.text = StatusText().text
    status.percent = nil
    showStatusScreen()
  }

  /// Nothing of the machine that was there shows or counts any more.
  private func forgetMachine() {
    isAttached = false
    router.connect(nil)
    sound.take(.end)
    setLEDs([])
    setCursor(.hidden)
  }

  private func takeLink() {
    guard let link else { return }
    for event in link.process() {
      switch event {
      case .attached(let name):
        isAttached = true
        router.connect(link.sender)
        if !name.isEmpty { rename(name) }
        report(.attached)
      case .detached:
        forgetMachine()
        status.text = "Waiting for the desktop to come back"
        status.percent = nil
        showStatusScreen()
        report(.waiting)
      case .surface(let surface):
        self.surface = surface
        hasAsked = false
        source = SurfaceSource(surface)
        needsStatusScreen = false
        fitPicture()
      case .damage(let region):
        hasAsked = false
        damage.formUnion(region)
      case .cursor(let image): setCursor(image)
      case .leds(let leds): setLEDs(leds)
      case .bell:
        // Not into the handshake.
        if client?.isInitialised == true {
          _ = viewer.write([RFBNumbers.ServerMessage.bell])
        }
      case .name(let name): rename(name)
      case .sound(let event): sound.take(event)
      // RFB knows no microphones.
      case .recording: break
      }
    }
  }

  private func setCursor(_ image: CursorImage) {
    cursor = image
    client?.setCursor(image)
  }

  private func setLEDs(_ leds: KeyboardLEDs) {
    self.leds = leds
    router.setLEDs(leds)
    extensions.ledsChanged()
  }

  private func rename(_ name: String) {
    status.name = name
    extensions.nameChanged(name)
    if surface == nil { showStatusScreen() }
  }

  // MARK: The picture

  private func show(status text: String, percent: Int?) {
    status.text = text
    status.percent = percent
    if surface == nil { showStatusScreen() }
  }

  private func showStatusScreen() {
    surface = nil
    fitted = nil
    router.setViewport(nil)
    needsStatusScreen = true
  }

  private func drawStatusScreen() {
    needsStatusScreen = false
    source = FrameSource(StatusScreen.draw(status, width: frame.width, height: frame.height))
    damage = Region(frame.bounds)
  }

  /// Chooses the frame for a new picture or a viewer that told what it can do.
  private func fitPicture() {
    guard surface != nil else { return }
    let canResize = client.map { !$0.isInitialised || $0.understandsDesktopSize } ?? true
    if canResize && (frame.width != source.width || frame.height != source.height) {
      frame = Frame(width: source.width, height: source.height)
      client?.setFrame(frame)
      lossy.removeAll()
      demanded.removeAll()
    }
    let viewport = Viewport(
      frameWidth: frame.width, frameHeight: frame.height, pictureWidth: source.width,
      pictureHeight: source.height)
    router.setViewport(viewport)
    fitted = viewport.isIdentity ? nil : FittedPicture(source, viewport)
    damage = Region(Rect(x: 0, y: 0, width: source.width, height: source.height))
    if fitted != nil {
      // The bars, too.
      let black = FrameSource(Frame(width: frame.width, height: frame.height))
      client?.markModified(frame.update(from: black, damage: Region(frame.bounds)))
    }
  }

  /// Brings the frame up to date; returns what changed in it.
  private func updateFrame(_ client: LibVNCClient) -> Region {
    let region = damage
    damage.removeAll()
    guard let fitted else {
      if client.mayCopy, let move = copies.move(frame, source, damage: region) {
        frame.apply(move)
        client.scheduleCopy(move.region, dx: move.dx, dy: move.dy)
        lastChange = MonotonicClock.now
        // What was lossy there now is here, too.
        lossy.formUnion(
          lossy.translated(x: move.dx, y: move.dy).intersection(move.region))
      }
      return frame.update(from: source, damage: region)
    }
    let changed = fitted.update(region)
    return frame.update(from: FrameSource(fitted.fitted), damage: changed)
  }

  /// Marks for the viewer what changed since the frame was last brought up to date.
  private func markChanges(_ client: LibVNCClient) {
    guard !damage.isEmpty else { return }
    let changed = updateFrame(client)
    guard !changed.isEmpty else { return }
    client.markModified(changed)
    lastChange = MonotonicClock.now
  }

  /// Takes the picture while it is whole, although the viewer is still busy: when it asks
  /// for the next one, the guest may be in the middle of another.
  private func capture(_ client: LibVNCClient) {
    guard !damage.isEmpty else { return }
    let region = captured.map { damage.union($0.region) } ?? damage
    markChanges(client)
    captured = (region, MonotonicClock.now)
  }

  // MARK: The viewer

  private func take(_ message: ClientMessage) {
    // A viewer that does not wait for the answer to its ClientInit gets it at once.
    introduce()
    switch message {
    case .version(let minor):
      do {
        client = try LibVNCClient(
          viewer: viewer.descriptor, frame: frame, name: status.name)
        client?.setCursor(cursor)
        extensions = ViewerExtensions(name: status.name)
        feed(Array("RFB 003.00\(minor)\n".utf8))
      } catch {
        finish("\(error)")
      }
    case .securityType(let type): feed([type])
    case .clientInit(let shared):
      if surface == nil && link != nil {
        heldInit = ([shared], MonotonicClock.now + configuration.introductionTime)
      } else {
        feed([shared])
      }
    case .encodings(let encodings): setEncodings(encodings)
    case .updateRequest(let incremental, let rect):
      // rfbproto, EnableContinuousUpdates: while they are on, incremental requests are
      // ignored and others honoured.
      guard !incremental || continuous == nil else { break }
      if !incremental { demanded.formUnion(rect.intersection(frame.bounds)) }
      client?.request(rect, incremental: incremental)
    case .cutText(let bytes):
      link?.send(.clipboard(String(decoding: bytes.map { UInt16($0) }, as: UTF16.self)))
    case .fence(let flags, let payload): takeFence(flags, payload)
    case .continuousUpdates(let enabled, let rect):
      continuous = enabled ? rect : nil
      client?.forgetRequests()
      for rect in demanded.rects { client?.request(rect, incremental: true) }
      if !enabled { _ = viewer.write([RFBNumbers.ServerMessage.endOfContinuousUpdates]) }
    case .audio(let request):
      sound.take(request)
      link?.listen(sound: sound.isEnabled, microphone: false)
    case .passed(let bytes), .setDesktopSize(let bytes): feed(bytes)
    case .key, .extendedKey, .pointer: break
    }
  }

  /// Ends the handshake, if the picture was all that it waited for.
  private func introduce() {
    guard let held = heldInit else { return }
    heldInit = nil
    feed(held.message)
  }

  private func feed(_ message: [UInt8]) {
    guard let client else { return }
    do {
      let (answer, reports) = try client.feed(message)
      if !viewer.write(answer) || !client.isOpen { finish("the viewer was refused") }
      for item in reports {
        switch item {
        case .clipboard(let text): link?.send(.clipboard(text))
        case .power(let request):
          if configuration.machineTakesPower {
            link?.send(.power(request))
          } else {
            report(.power(request))
          }
        case .desktopSize(let width, let height):
          link?.send(.resize(width: width, height: height))
        }
      }
    } catch {
      finish("\(error)")
    }
  }

  private func setEncodings(_ encodings: [Int32]) {
    feed(ViewerExtensions.setEncodings(for: encodings))
    _ = viewer.write(extensions.take(encodings))
    if !extensions.answersFences { pacer.forget() }
    fitPicture()
  }

  private func takeFence(_ flags: UInt32, _ payload: [UInt8]) {
    if flags & RFBNumbers.Fence.request != 0 {
      _ = viewer.write(ViewerExtensions.fenceAnswer(flags, payload))
    } else if payload.count == 4 {
      let identifier = payload.reduce(0) { $0 << 8 | UInt32($1) }
      if pacer.answered(identifier, now: MonotonicClock.now) { viewer.progressed() }
    }
  }

  // MARK: Updates

  /// Does whatever can be done now.
  private func advance() {
    if let farewell, MonotonicClock.now >= farewell.upperBound { return finish("ended") }
    if client?.isInitialised == true || heldInit != nil {
      handshakeDeadline = nil
    } else if let handshakeDeadline, MonotonicClock.now >= handshakeDeadline {
      return finish("the viewer did not finish its handshake in time")
    }
    if let held = heldInit, surface != nil || MonotonicClock.now >= held.deadline {
      introduce()
    }
    guard let client, client.isInitialised, heldInit == nil else { return }
    if needsStatusScreen { drawStatusScreen() }
    if extensions.hasPending {
      _ = viewer.write(
        extensions.pendingRects(
          leds: leds, width: frame.width, height: frame.height))
    }
    sound.send(to: viewer)
    let isWanted = mayStart(client)
    while !isFinished && mayStart(client) && update(client) {}
    if !isFinished { capture(client) }
    // Also when that answered the request: a viewer that asks for the whole screen
    // each time is answered at once, and must not see the same picture for ever.
    if !hasAsked && isAttached && surface != nil && isWanted {
      hasAsked = true
      link?.requestDamage()
    }
  }

  /// How much longer than usual the viewer may take for what it has to do before the
  /// next update; `nil` if nothing waits for it.
  private var owed: UInt64? {
    if pacer.waitingSince != nil { return pacer.deliveryTime }
    return isWatchingSocket ? 0 : nil
  }

  /// Whether the viewer wants an update and its path takes one.
  private func mayStart(_ client: LibVNCClient) -> Bool {
    let isWanted = (client.isRequested || continuous != nil) && pacer.allowsUpdate
    let isWritable = !isWanted || viewer.isWritable
    if isWritable == isWatchingSocket {
      isWatchingSocket = !isWritable
      if isWritable {
        poller.remove(viewer.descriptor)
      } else {
        try? poller.add(viewer.descriptor, .writable, token: Self.viewerToken)
      }
    }
    return isWanted && isWritable
  }

  /// Sends one update if there is anything to send; `false` if there was not.
  private func update(_ client: LibVNCClient) -> Bool {
    var lossless = false
    if let captured, MonotonicClock.now >= captured.time + configuration.freshness {
      damage.formUnion(captured.region)
    }
    captured = nil
    markChanges(client)
    router.isCursorPainted = client.paintsCursor
    if router.isCursorPainted {
      let position = router.pointerPosition
      client.movePointer(x: position.x, y: position.y)
    }
    if let continuous { client.request(continuous, incremental: true) }
    if !client.hasPending {
      guard MonotonicClock.now >= lastChange + Self.stillness, client.isRequested(lossy) else {
        return false
      }
      client.markModified(lossy)
      lossless = true
    }
    let before = client.modified
    let bytesBefore = client.bytesSent
    guard viewer.watched({ client.sendUpdate(lossless: lossless) }) else {
      finish("the viewer disconnected")
      return false
    }
    let bytes = client.bytesSent &- bytesBefore
    guard bytes != 0 else { return false }
    account(
      for: before.subtracting(client.modified), bytes: max(0, bytes), client,
      lossless: lossless)
    return true
  }

  private func account(
    for sent: Region, bytes: Int, _ client: LibVNCClient, lossless: Bool
  ) {
    if client.isLossy && !lossless { lossy.formUnion(sent) } else { lossy.subtract(sent) }
    demanded.subtract(sent)
    guard extensions.answersFences else { return }
    let identifier = pacer.sent(bytes: bytes, now: MonotonicClock.now)
    _ = viewer.write(ViewerExtensions.fenceRequest(identifier))
  }
}
