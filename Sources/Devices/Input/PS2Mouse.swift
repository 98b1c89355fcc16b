import DeviceModel

/// A PS/2 mouse that becomes an IntelliMouse or IntelliMouse Explorer when the
/// driver knocks, as it looks from the controller's end of the cable.
///
/// Follows IBM's PS/2 Hardware Interface Technical Reference, "Mouse", and
/// Microsoft's IntelliMouse extensions. Movement is given in counts and does not
/// depend on the resolution, which is only remembered.
package final class PS2Mouse {
  private enum Command {
    static let scalingOne: UInt8 = 0xE6
    static let scalingTwo: UInt8 = 0xE7
    static let resolution: UInt8 = 0xE8
    static let status: UInt8 = 0xE9
    static let streamMode: UInt8 = 0xEA
    static let readData: UInt8 = 0xEB
    static let endWrap: UInt8 = 0xEC
    static let wrap: UInt8 = 0xEE
    static let remoteMode: UInt8 = 0xF0
    static let identify: UInt8 = 0xF2
    static let sampleRate: UInt8 = 0xF3
    static let enable: UInt8 = 0xF4
    static let disable: UInt8 = 0xF5
    static let setDefault: UInt8 = 0xF6
    static let resend: UInt8 = 0xFE
    static let reset: UInt8 = 0xFF
  }

  private enum Reply {
    static let selfTestPassed: UInt8 = 0xAA
    static let acknowledge: UInt8 = 0xFA
    static let resend: UInt8 = 0xFE
  }

  /// What the mouse answers to "identify".
  package enum Kind: UInt8, Codable, Sendable {
    case standard = 0
    case intelliMouse = 3
    case explorer = 4
  }

  /// Movement since the last packet, with the buttons as they were then.
  package struct Report: Codable, Sendable, Equatable {
    var x = 0
    /// Grows upwards, as on the wire.
    var y = 0
    /// Positive towards the user, as on the wire.
    var wheel = 0
    var buttons = PointerButtons()
    /// Ends in a corner or at an edge, so that nothing may be added to it.
    var isFinal = false

    var isStill: Bool { x == 0 && y == 0 && wheel == 0 }
  }

  package struct State: Codable, Sendable {
    var version = 1
    var kind = Kind.standard
    var reporting = false
    var remote = false
    var wrapping = false
    var scalingTwo = false
    var resolution: UInt8 = 2
    var sampleRate: UInt8 = 100
    /// The last sample rates set, newest last: the knock.
    var knock: [UInt8] = []
    var awaiting: UInt8?
    var output: [UInt8] = []
    var lastSent: [UInt8] = []
    /// What waits for a packet. Reports with different buttons stay apart, so
    /// that a quick click is never lost.
    var reports: [Report] = []
    /// The buttons as they are.
    var buttons = PointerButtons()
    var nextSample: UInt64 = 0
    var tracker = PointerTracker()
  }

  /// Button changes kept for a guest that does not read.
  static let maximumReports = 64

  private var state: State
  private let clock: any DeviceClock
  private lazy var timer = clock.makeTimer { [weak self] in self?.sample() }

  /// Called when there may be a byte to take.
  var onData: () -> Void = {}

  init(clock: any DeviceClock, state: State?) {
    self.clock = clock
    self.state = state ?? State()
    if !self.state.reports.isEmpty { timer.arm(at: self.state.nextSample) }
  }

  func saveState() -> State { state }

  func reset() {
    timer.cancel()
    let size = state.tracker.size
    state = State()
    state.tracker.size = size
  }

  /// Whether the driver listens.
  var isListening: Bool { (state.reporting || state.remote) && !state.wrapping }

  // MARK: - Movement

  /// The picture's size in pixels, by which absolute positions become counts.
  func setScanoutSize(width: Int, height: Int) {
    state.tracker.resize(width: width, height: height)
  }

  /// `y` grows downwards, `wheel` away from the user is positive.
  func move(x: Int, y: Int, wheel: Int, buttons: PointerButtons) {
    guard isListening else { return }
    state.tracker.lose()
    add(x: x, y: y, wheel: wheel, buttons: buttons)
  }

  /// `x` and `y` are 0 … 65535 over the picture.
  func moveTo(x: UInt16, y: UInt16, buttons: PointerButtons) {
    guard isListening else { return }
    for step in state.tracker.steps(to: (x, y)) {
      // Buttons change only once the pointer is there.
      add(x: step.x, y: step.y, wheel: 0, buttons: state.buttons, isFinal: step.pushes)
    }
    add(x: 0, y: 0, wheel: 0, buttons: buttons)
  }

  /// Sends a packet without movement, out of turn: its interrupt makes the VMware
  /// pointer driver, which sits on top of a PS/2 mouse, look at its own queue.
  func nudge() {
    guard state.reporting, !state.remote, !state.wrapping else { return }
    if state.reports.isEmpty { state.reports.append(Report(buttons: state.buttons)) }
    state.nextSample = clock.now
    sample()
  }

  private func add(
    x: Int, y: Int, wheel: Int, buttons: PointerButtons, isFinal: Bool = false
  ) {
    let isNew = buttons != state.buttons
    state.buttons = buttons
    guard x != 0 || y != 0 || wheel != 0 || isNew else { return }
    if state.reports.last?.isFinal != false || isNew {
      if state.reports.count < Self.maximumReports {
        state.reports.append(Report())
      } else {
        state.tracker.lose()
      }
    }
    let last = state.reports.count - 1
    state.reports[last].x = Self.sum(state.reports[last].x, x)
    state.reports[last].y = Self.sum(state.reports[last].y, 0 &- y)
    state.reports[last].wheel = Self.sum(state.reports[last].wheel, 0 &- wheel)
    state.reports[last].buttons = buttons
    state.reports[last].isFinal = isFinal
    sample()
  }

  /// Adds what a person cannot exceed and a hostile sender may.
  private static func sum(_ old: Int, _ change: Int) -> Int {
    let limit = 1 << 16
    return min(max(old + min(max(change, -limit), limit), -limit), limit)
  }

  /// Sends the next packet when the mouse streams, its turn has come, and the
  /// last one was taken.
  private func sample() {
    guard state.reporting, !state.remote, !state.wrapping, state.awaiting == nil,
      state.output.isEmpty, !state.reports.isEmpty
    else { return }
    let now = clock.now
    guard now >= state.nextSample else { return timer.arm(at: state.nextSample) }
    state.nextSample = now &+ 1_000_000_000 / UInt64(max(state.sampleRate, 10))
    state.lastSent = takePacket(scaled: state.scalingTwo)
    state.output = state.lastSent
    if !state.reports.isEmpty { timer.arm(at: state.nextSample) }
    onData()
  }

  /// Takes as much of the oldest report as a packet holds.
  private func takePacket(scaled: Bool) -> [UInt8] {
    var report = state.reports.first ?? Report(buttons: state.buttons)
    let x = min(max(report.x, -255), 255)
    let y = min(max(report.y, -255), 255)
    let wheel = state.kind == .standard ? 0 : min(max(report.wheel, -8), 7)
    report.x -= x
    report.y -= y
    report.wheel = state.kind == .standard ? 0 : report.wheel - wheel
    if !state.reports.isEmpty {
      if report.isStill { state.reports.removeFirst() } else { state.reports[0] = report }
    }
    return packet(
      x: scaled ? Self.doubled(x) : x, y: scaled ? Self.doubled(y) : y, wheel: wheel,
      buttons: report.buttons)
  }

  private func packet(x: Int, y: Int, wheel: Int, buttons: PointerButtons) -> [UInt8] {
    let overflow: UInt8 = (abs(x) > 255 ? 0x40 : 0) | (abs(y) > 255 ? 0x80 : 0)
    let sign: UInt8 = (x < 0 ? 0x10 : 0) | (y < 0 ? 0x20 : 0)
    var bytes = [
      overflow | sign | 0x08 | Self.buttonBits(buttons),
      UInt8(truncatingIfNeeded: min(max(x, -255), 255)),
      UInt8(truncatingIfNeeded: min(max(y, -255), 255)),
    ]
    switch state.kind {
    case .standard: break
    case .intelliMouse: bytes.append(UInt8(truncatingIfNeeded: wheel))
    case .explorer:
      bytes.append(
        UInt8(truncatingIfNeeded: wheel) & 0x0F | (buttons.contains(.side) ? 0x10 : 0)
          | (buttons.contains(.extra) ? 0x20 : 0))
    }
    return bytes
  }

  /// Left, right, middle from bit 0 in movement packets.
  private static func buttonBits(_ buttons: PointerButtons) -> UInt8 {
    (buttons.contains(.left) ? 1 : 0) | (buttons.contains(.right) ? 2 : 0)
      | (buttons.contains(.middle) ? 4 : 0)
  }

  /// 2:1 scaling, from the reference's table.
  private static func doubled(_ count: Int) -> Int {
    switch abs(count) {
    case 0, 1, 3: count
    case 2: count.signum()
    case 4: 6 * count.signum()
    case 5: 9 * count.signum()
    default: 2 * count
    }
  }

  // MARK: - The cable

  func nextByte() -> UInt8? {
    guard !state.output.isEmpty else { return nil }
    let byte = state.output.removeFirst()
    if state.output.isEmpty { sample() }
    return byte
  }

  func receive(_ byte: UInt8) {
    if state.wrapping, byte != Command.endWrap, byte != Command.reset {
      reply([byte])
    } else if let command = state.awaiting {
      state.awaiting = nil
      parameter(byte, of: command)
    } else {
      command(byte)
    }
    onData()
  }

  private func command(_ byte: UInt8) {
    // The rest of a movement packet is dropped when a command comes in.
    state.output = []
    switch byte {
    case Command.scalingOne: acknowledge { $0.scalingTwo = false }
    case Command.scalingTwo: acknowledge { $0.scalingTwo = true }
    case Command.resolution, Command.sampleRate: acknowledge { $0.awaiting = byte }
    case Command.status:
      reply([Reply.acknowledge, statusByte, state.resolution, state.sampleRate])
    case Command.streamMode: acknowledge { $0.remote = false }
    case Command.readData: reply([Reply.acknowledge] + takePacket(scaled: false))
    case Command.endWrap: acknowledge { $0.wrapping = false }
    case Command.wrap: acknowledge { $0.wrapping = true }
    case Command.remoteMode: acknowledge { $0.remote = true }
    case Command.identify: reply([Reply.acknowledge, state.kind.rawValue])
    case Command.enable:
      // What moved before is not reported.
      acknowledge {
        $0.reports = []
        $0.reporting = true
        $0.tracker.lose()
      }
    case Command.disable: acknowledge { $0.reporting = false }
    case Command.setDefault: acknowledge { Self.setDefaults(&$0) }
    case Command.resend: reply(state.lastSent)
    case Command.reset:
      Self.setDefaults(&state)
      state.kind = .standard
      state.knock = []
      state.wrapping = false
      reply([Reply.acknowledge, Reply.selfTestPassed, state.kind.rawValue])
    default: reply([Reply.resend])
    }
  }

  private func parameter(_ byte: UInt8, of command: UInt8) {
    state.output = []
    switch command {
    case Command.resolution where byte <= 3:
      acknowledge { $0.resolution = byte }
    case Command.sampleRate where (1...200).contains(byte):
      acknowledge {
        $0.sampleRate = byte
        $0.knock = ($0.knock + [byte]).suffix(3)
        if $0.knock == [200, 100, 80] { $0.kind = .intelliMouse }
        if $0.knock == [200, 200, 80] { $0.kind = .explorer }
      }
    default:
      reply([Reply.resend])
    }
  }

  private static func setDefaults(_ state: inout State) {
    state.reporting = false
    state.remote = false
    state.scalingTwo = false
    state.resolution = 2
    state.sampleRate = 100
    state.reports = []
    state.tracker.lose()
  }

  /// Here left is bit 2 and right bit 0, the other way round than in packets.
  private var statusByte: UInt8 {
    (state.remote ? 0x40 : 0) | (state.reporting ? 0x20 : 0) | (state.scalingTwo ? 0x10 : 0)
      | (state.buttons.contains(.left) ? 4 : 0) | (state.buttons.contains(.middle) ? 2 : 0)
      | (state.buttons.contains(.right) ? 1 : 0)
  }

  private func acknowledge(_ change: (inout State) -> Void) {
    change(&state)
    reply([Reply.acknowledge])
  }

  private func reply(_ bytes: [UInt8]) {
    if bytes != [Reply.resend] { state.lastSent = bytes }
    state.output = bytes
  }
}
