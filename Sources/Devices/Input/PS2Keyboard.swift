import DeviceModel

/// An AT keyboard, as it looks from the controller's end of the cable.
///
/// Follows IBM's PS/2 Hardware Interface Technical Reference, "Keyboards
/// (101- and 102-key)". Self-test and replies take no time.
package final class PS2Keyboard {
  // Commands of the system.
  private enum Command {
    static let setLEDs: UInt8 = 0xED
    static let echo: UInt8 = 0xEE
    static let scanCodeSet: UInt8 = 0xF0
    static let identify: UInt8 = 0xF2
    static let typematic: UInt8 = 0xF3
    static let enable: UInt8 = 0xF4
    static let defaultDisable: UInt8 = 0xF5
    static let setDefault: UInt8 = 0xF6
    static let allKeyTypes: ClosedRange<UInt8> = 0xF7...0xFA
    static let oneKeyType: ClosedRange<UInt8> = 0xFB...0xFD
    static let resend: UInt8 = 0xFE
    static let reset: UInt8 = 0xFF
  }

  // Replies of the keyboard.
  private enum Reply {
    static let overrunSetOne: UInt8 = 0xFF
    static let overrun: UInt8 = 0x00
    static let selfTestPassed: UInt8 = 0xAA
    static let acknowledge: UInt8 = 0xFA
    static let resend: UInt8 = 0xFE
  }

  /// Set 3 only: what a key sends besides its make code.
  package enum KeyType: UInt8, Codable, Sendable {
    case typematic = 0
    case makeBreak = 1
    case makeOnly = 2
    case typematicMakeBreak = 3

    var repeats: Bool { self == .typematic || self == .typematicMakeBreak }
    var breaks: Bool { self == .makeBreak || self == .typematicMakeBreak }
  }

  package struct State: Codable, Sendable {
    var version = 1
    var scanning = true
    var scanCodeSet: UInt8 = 2
    var typematic: UInt8 = PS2Keyboard.defaultTypematic
    var leds = KeyboardLEDs()
    /// `KeyType` by set 3 code.
    var keyTypes = PS2Keyboard.defaultKeyTypes
    /// The command whose parameter comes next.
    var awaiting: UInt8?
    /// Replies go out before scan codes.
    var replies: [UInt8] = []
    var buffer: [UInt8] = []
    var lastSent: UInt8 = 0
    /// Scan codes, key by key, that did not fit into the buffer yet.
    var backlog: [[UInt8]] = []
    /// The keys that are down, in the order they were pressed.
    var pressed: [KeyCode] = []
    var repeating: KeyCode?
    var repeatDeadline: UInt64?
  }

  static let defaultTypematic: UInt8 = 0x2B
  static let defaultKeyTypes = keyTypes(.typematicMakeBreak)
  /// Scan code bytes that the keyboard holds, as real ones do.
  static let bufferSize = 16
  /// Key events kept for a guest that is slower than the typist. Only when this
  /// is full too does the guest see an overrun.
  static let backlogSize = 256

  private var state: State
  private let clock: any DeviceClock
  private lazy var timer = clock.makeTimer { [weak self] in self?.repeatKey() }

  /// Called when there may be a byte to take.
  var onData: () -> Void = {}
  /// Called when the guest sets the lights.
  var onLEDs: (KeyboardLEDs) -> Void = { _ in }

  init(clock: any DeviceClock, state: State?) {
    self.clock = clock
    self.state = state ?? State()
    if let deadline = self.state.repeatDeadline { timer.arm(at: deadline) }
  }

  func saveState() -> State { state }

  /// Power-on reset. Sends nothing: firmware resets the keyboard itself.
  func reset() {
    timer.cancel()
    let changed = !state.leds.isEmpty
    state = State()
    if changed { onLEDs([]) }
  }

  var isScanning: Bool { state.scanning }
  var leds: KeyboardLEDs { state.leds }

  // MARK: - Keys

  func deliver(_ key: KeyCode, pressed: Bool) {
    if pressed {
      // A key that is down already repeats by itself.
      guard state.scanning, !state.pressed.contains(key) else { return }
      guard state.backlog.count < Self.backlogSize else { return overrun() }
      state.pressed.append(key)
    } else {
      // A release is never dropped, or the key would stay down in the guest.
      guard let index = state.pressed.firstIndex(of: key) else { return }
      state.pressed.remove(at: index)
      if state.repeating == key { stopRepeating() }
      guard state.scanning else { return }
    }
    state.backlog.append(scanCodes(key, pressed: pressed))
    fillBuffer()
    if pressed { startRepeating(key) }
    onData()
  }

  private func fillBuffer() {
    while let bytes = state.backlog.first {
      guard state.buffer.isEmpty || state.buffer.count + bytes.count <= Self.bufferSize else {
        return
      }
      state.backlog.removeFirst()
      state.buffer += bytes
    }
  }

  private func scanCodes(_ key: KeyCode, pressed: Bool) -> [UInt8] {
    if state.scanCodeSet == 3, !pressed, !keyType(of: key).breaks { return [] }
    func isDown(_ keys: UInt16...) -> Bool { keys.contains { state.pressed.contains(KeyCode($0)) } }
    let modifiers = ScanCodes.Modifiers(
      control: isDown(0x1D, 0xE01D), shift: isDown(0x2A, 0x36), alt: isDown(0x38, 0xE038))
    return ScanCodes.bytes(
      for: key, pressed: pressed, set: state.scanCodeSet, modifiers: modifiers)
  }

  private func keyType(of key: KeyCode) -> KeyType {
    let code = Int(ScanCodes.setThreeCode(key))
    guard state.keyTypes.indices.contains(code) else { return .typematicMakeBreak }
    return KeyType(rawValue: state.keyTypes[code]) ?? .typematicMakeBreak
  }

  private static func keyTypes(_ type: KeyType) -> [UInt8] {
    Array(repeating: type.rawValue, count: 256)
  }

  private func overrun() {
    let code = state.scanCodeSet == 1 ? Reply.overrunSetOne : Reply.overrun
    guard state.buffer.last != code else { return }
    state.buffer.append(code)
    onData()
  }

  // MARK: - Typematic

  private func startRepeating(_ key: KeyCode) {
    let repeats =
      state.scanCodeSet == 3 ? keyType(of: key).repeats : ScanCodes.repeats(key)
    guard repeats else { return stopRepeating() }
    state.repeating = key
    armRepeat(after: UInt64(state.typematic >> 5 & 3) * 250_000_000 + 250_000_000)
  }

  private func stopRepeating() {
    state.repeating = nil
    state.repeatDeadline = nil
    timer.cancel()
  }

  private func armRepeat(after delay: UInt64) {
    let deadline = clock.now &+ delay
    state.repeatDeadline = deadline
    timer.arm(at: deadline)
  }

  private func repeatKey() {
    state.repeatDeadline = nil
    guard let key = state.repeating, state.scanning else { return }
    // A guest that has not taken the last code yet gets no further ones.
    if state.backlog.isEmpty, state.buffer.isEmpty {
      state.buffer = repeatCodes(key)
      onData()
    }
    // Period = (8 + A) × 2^B × 4.17 ms, A and B from the typematic byte.
    let mantissa = UInt64(8 + (state.typematic & 7))
    armRepeat(after: (mantissa << UInt64(state.typematic >> 3 & 3)) * 4_170_000)
  }

  /// A held Print Screen repeats without its leading fake shift.
  private func repeatCodes(_ key: KeyCode) -> [UInt8] {
    let codes = scanCodes(key, pressed: true)
    return key == ScanCodes.printScreen && codes.count == 4 ? Array(codes.suffix(2)) : codes
  }

  // MARK: - The cable

  /// Takes the next byte for the system; `nil` when there is none.
  func nextByte() -> UInt8? {
    if !state.replies.isEmpty {
      let byte = state.replies.removeFirst()
      if byte != Reply.resend { state.lastSent = byte }
      return byte
    }
    guard !state.buffer.isEmpty else { return nil }
    state.lastSent = state.buffer.removeFirst()
    fillBuffer()
    return state.lastSent
  }

  /// A byte from the system.
  func receive(_ byte: UInt8) {
    // A new command ends one that waits for its parameter; parameters of key
    // types are key codes and may be any byte below the commands.
    let isCommand = byte >= Command.setLEDs
    if let command = state.awaiting, !isCommand {
      parameter(byte, of: command)
    } else {
      state.awaiting = nil
      command(byte)
    }
    onData()
  }

  private func command(_ byte: UInt8) {
    switch byte {
    case Command.setLEDs, Command.scanCodeSet, Command.typematic, Command.oneKeyType:
      state.awaiting = byte
      reply(Reply.acknowledge)
    case Command.echo:
      reply(Command.echo)
    case Command.identify:
      reply(Reply.acknowledge, 0xAB, 0x83)
    case Command.enable:
      clearBuffer()
      state.scanning = true
      reply(Reply.acknowledge)
    case Command.defaultDisable:
      setDefaults()
      state.scanning = false
      reply(Reply.acknowledge)
    case Command.setDefault:
      setDefaults()
      reply(Reply.acknowledge)
    case Command.allKeyTypes:
      state.keyTypes = Self.keyTypes(KeyType(rawValue: byte &- 0xF7) ?? .typematicMakeBreak)
      reply(Reply.acknowledge)
    case Command.resend:
      reply(state.lastSent)
    case Command.reset:
      setDefaults()
      setLEDs([])
      state.scanning = true
      state.replies = []
      reply(Reply.acknowledge, Reply.selfTestPassed)
    default:
      reply(Reply.resend)
    }
  }

  private func parameter(_ byte: UInt8, of command: UInt8) {
    switch command {
    case Command.setLEDs:
      state.awaiting = nil
      setLEDs(KeyboardLEDs(rawValue: byte & 7))
      reply(Reply.acknowledge)
    case Command.typematic where byte < 0x80:
      state.awaiting = nil
      state.typematic = byte
      reply(Reply.acknowledge)
    case Command.scanCodeSet where byte == 0:
      state.awaiting = nil
      reply(Reply.acknowledge, state.scanCodeSet)
    case Command.scanCodeSet where byte <= 3:
      state.awaiting = nil
      clearBuffer()
      state.scanCodeSet = byte
      reply(Reply.acknowledge)
    case Command.oneKeyType:
      // More keys may follow; the next command ends the list.
      if state.keyTypes.indices.contains(Int(byte)) {
        state.keyTypes[Int(byte)] = command &- 0xFB
      }
      reply(Reply.acknowledge)
    default:
      state.awaiting = nil
      reply(Reply.resend)
    }
  }

  /// Sets 2, typematic rate and key types as after power-on.
  private func setDefaults() {
    clearBuffer()
    state.scanCodeSet = 2
    state.typematic = Self.defaultTypematic
    state.keyTypes = Self.defaultKeyTypes
  }

  private func clearBuffer() {
    stopRepeating()
    state.buffer = []
    state.backlog = []
  }

  private func setLEDs(_ leds: KeyboardLEDs) {
    guard leds != state.leds else { return }
    state.leds = leds
    onLEDs(leds)
  }

  private func reply(_ bytes: UInt8...) {
    // A host that only writes and never reads cannot make the queue grow.
    guard state.replies.count + bytes.count <= Self.bufferSize else { return }
    state.replies += bytes
  }
}
