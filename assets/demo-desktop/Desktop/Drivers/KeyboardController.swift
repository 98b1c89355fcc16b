/// The 8042: a keyboard that speaks scancode set 1 (set 2, translated) on its first
/// port and a mouse on its second.
final class KeyboardController {
  private enum Status {
    static let outputFull: UInt8 = 0x01
    static let inputFull: UInt8 = 0x02
    static let fromMouse: UInt8 = 0x20
  }

  /// True if the mouse reports a wheel.
  private(set) var hasWheel = false
  private var lights: UInt8 = 0
  private var lightsSent: UInt8 = 0xFF
  private enum LightState { case idle, command, argument }
  private var lightState = LightState.idle

  init() {
    command(0xAD)
    command(0xA7)
    flush()
    command(0x20)
    let configuration = readByte() ?? 0
    command(0x60)
    write(configuration & ~0x30 | 0x43)  // both interrupts, translation, both clocks
    command(0xA8)
    command(0xAE)
    startMouse()
    for byte: UInt8 in [0xF0, 0x02, 0xF4] { write(byte); _ = readByte() }
    flush()
    [Interrupts.keyboard, .mouse].forEach { $0.unmask() }
  }

  /// Hands every waiting byte to the device it came from. Returns whether there was
  /// a byte at all.
  func drain(keyboard: (UInt8) -> Void, mouse: (UInt8) -> Void) {
    while true {
      let status = Port(0x64).byte
      guard status & Status.outputFull != 0, status != 0xFF else { return }
      let byte = Port(0x60).byte
      if status & Status.fromMouse != 0 {
        mouse(byte)
      } else if !acknowledgesLights(byte) {
        keyboard(byte)
      }
    }
  }

  /// Shows scroll lock (bit 0), num lock (1) and caps lock (2).
  func setLights(_ newLights: UInt8) {
    lights = newLights
    if lightState == .idle { sendLights() }
  }

  /// The CPU reset line, which is an output of this controller.
  func pulseReset() { command(0xFE) }

  private func sendLights() {
    guard lights != lightsSent else { return }
    lightState = .command
    write(0xED)
  }

  private func acknowledgesLights(_ byte: UInt8) -> Bool {
    guard lightState != .idle, byte == 0xFA || byte == 0xFE else { return false }
    if byte == 0xFE {
      lightState = .idle
    } else if lightState == .command {
      lightState = .argument
      lightsSent = lights
      write(lightsSent)
    } else {
      lightState = .idle
      sendLights()
    }
    return true
  }

  /// Defaults, the IntelliMouse knock (200, 100, 80 samples a second), streaming.
  private func startMouse() {
    for byte: UInt8 in [0xF6, 0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF2] { _ = askMouse(byte) }
    hasWheel = readByte() == 3
    for byte: UInt8 in [0xF3, 100, 0xF4] { _ = askMouse(byte) }
  }

  private func askMouse(_ byte: UInt8) -> UInt8? {
    command(0xD4)
    write(byte)
    return readByte()
  }

  private func command(_ byte: UInt8) {
    waitForInput()
    Port(0x64).byte = byte
  }

  private func write(_ byte: UInt8) {
    waitForInput()
    Port(0x60).byte = byte
  }

  private func waitForInput() {
    var patience = 1000
    while Port(0x64).byte & Status.inputFull != 0, patience > 0 { patience -= 1 }
  }

  private func readByte() -> UInt8? {
    for _ in 0..<500 where Port(0x64).byte & Status.outputFull != 0 { return Port(0x60).byte }
    return nil
  }

  private func flush() {
    for _ in 0..<64 where Port(0x64).byte & Status.outputFull != 0 { _ = Port(0x60).byte }
  }
}
