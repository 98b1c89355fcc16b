import DeviceModel

/// The general registers of the vCPU whose port access is being carried out, as
/// its 32-bit I/O instruction sees them.
package struct CallingRegisters: Equatable, Sendable {
  package var eax: UInt32
  package var ebx: UInt32
  package var ecx: UInt32
  package var edx: UInt32
  package var esi: UInt32
  package var edi: UInt32

  package init(
    eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0, esi: UInt32 = 0,
    edi: UInt32 = 0
  ) {
    self.eax = eax
    self.ebx = ebx
    self.ecx = ecx
    self.edx = edx
    self.esi = esi
    self.edi = edi
  }
}

/// Access to the registers of the vCPU that is in an I/O exit. Called only from
/// within a `BusTarget.read` or `write` on that vCPU's thread, device lock held.
package protocol CallingProcessor: AnyObject {
  /// The registers at the I/O instruction.
  func readRegisters() -> CallingRegisters

  /// Writes EBX, ECX, EDX, ESI and EDI, clearing the upper halves of the 64-bit
  /// registers. EAX is not written here: it is what the port read returns.
  func writeRegisters(_ registers: CallingRegisters)
}

/// The VMware backdoor's absolute pointer ("vmmouse"). Map 4 bytes at 0x5658.
///
/// Register use as in the public VMware tools sources and drivers: EAX holds the
/// magic number, CX the command, EBX its argument; a 32-bit IN carries it out.
package final class VMwareBackdoor: BusTarget, StatefulDevice {
  private static let magic: UInt32 = 0x564D_5868

  private enum Command {
    static let version: UInt16 = 0x0A
    static let pointerData: UInt16 = 0x27
    static let pointerStatus: UInt16 = 0x28
    static let pointerCommand: UInt16 = 0x29
  }

  private enum PointerCommand {
    static let readID: UInt32 = 0x4541_4552
    static let disable: UInt32 = 0x0000_00F5
    static let requestRelative: UInt32 = 0x4C45_5252
    static let requestAbsolute: UInt32 = 0x5342_4152
  }

  private static let protocolVersion: UInt32 = 6
  private static let pointerVersion: UInt32 = 0x3442_554A
  private static let errorStatus: UInt32 = 0xFFFF_0000
  /// Set in the buttons word of a packet whose position is a movement.
  private static let relativePacket: UInt32 = 0x0001_0000
  /// Words queued for the driver, four a packet.
  private static let queueSize = 1024

  package struct State: Codable, Sendable {
    var version = 1
    var enabled = false
    var absolute = false
    /// Words for the driver: buttons, x, y, wheel of each packet.
    var queue: [UInt32] = []
    var x: UInt16 = 0
    var y: UInt16 = 0
  }

  package var maximumAccessWidth: Int { 4 }

  private var state: State
  private let processor: any CallingProcessor
  private let nudge: () -> Void

  /// - Parameters:
  ///   - nudge: raises the mouse interrupt that makes the driver read; it is
  ///     `I8042.nudgeMouse` of the same machine.
  package init(
    processor: any CallingProcessor, nudge: @escaping () -> Void, state: State?
  ) {
    self.processor = processor
    self.nudge = nudge
    self.state = state ?? State()
  }

  package func saveState() -> State { state }
  package func reset() { state = State() }

  // MARK: - The port

  package func read(offset: UInt64, width: Int) -> UInt64 {
    guard offset == 0, width == 4 else { return .max }
    var registers = processor.readRegisters()
    guard registers.eax == Self.magic else { return UInt64(registers.eax) }
    let before = registers
    switch UInt16(truncatingIfNeeded: registers.ecx) {
    case Command.version:
      registers.eax = Self.protocolVersion
      registers.ebx = Self.magic
    case Command.pointerStatus:
      registers.eax = state.enabled ? UInt32(state.queue.count) : Self.errorStatus
    case Command.pointerCommand:
      command(registers.ebx)
      registers.eax = 0
    case Command.pointerData:
      data(&registers)
    default:
      registers.eax = .max
    }
    if registers != before { processor.writeRegisters(registers) }
    return UInt64(registers.eax)
  }

  /// OUT carries the same commands and returns nothing.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    _ = read(offset: offset, width: width)
  }

  private func command(_ command: UInt32) {
    switch command {
    case PointerCommand.readID:
      state.enabled = true
      state.queue = [Self.pointerVersion]
    case PointerCommand.disable: state = State()
    case PointerCommand.requestRelative: state.absolute = false
    case PointerCommand.requestAbsolute: state.absolute = true
    default: break
    }
  }

  /// Hands over EBX words; asking for more than there are is a driver that lost
  /// its place, and disables the device until it is enabled anew.
  private func data(_ registers: inout CallingRegisters) {
    let count = Int(registers.ebx)
    guard state.enabled, (1...6).contains(count), count <= state.queue.count else {
      state = State()
      registers.eax = Self.errorStatus
      return
    }
    let places: [WritableKeyPath<CallingRegisters, UInt32>] = [
      \.eax, \.ebx, \.ecx, \.edx, \.esi, \.edi,
    ]
    for (place, word) in zip(places, state.queue.prefix(count)) { registers[keyPath: place] = word }
    state.queue.removeFirst(count)
  }
}

extension VMwareBackdoor: InputSink {
  package func accepts(_ event: InputEvent) -> Bool {
    guard state.enabled else { return false }
    switch event {
    case .key: return false
    case .absolutePointer: return state.absolute
    case .relativePointer: return true
    }
  }

  package func deliver(_ event: InputEvent) {
    guard accepts(event) else { return }
    switch event {
    case .key: return
    case .absolutePointer(let x, let y, let buttons):
      state.x = x
      state.y = y
      enqueue(Self.bits(buttons), UInt32(x), UInt32(y), 0)
    case .relativePointer(0, 0, let wheel, _, let buttons) where state.absolute:
      enqueue(Self.bits(buttons), UInt32(state.x), UInt32(state.y), Self.word(0 &- wheel))
    case .relativePointer(let x, let y, let wheel, _, let buttons):
      enqueue(
        Self.bits(buttons) | Self.relativePacket, Self.word(x), Self.word(0 &- y),
        Self.word(0 &- wheel))
    }
    nudge()
  }

  private func enqueue(_ packet: UInt32...) {
    // A driver that does not read misses movement in between, but never the
    // last position nor, until the queue is full of them, a change of buttons.
    guard state.queue.count + packet.count > Self.queueSize else {
      return state.queue += packet
    }
    state.queue.replaceSubrange((state.queue.count - 4)..., with: packet)
  }

  private static func bits(_ buttons: PointerButtons) -> UInt32 {
    (buttons.contains(.left) ? 0x20 : 0) | (buttons.contains(.right) ? 0x10 : 0)
      | (buttons.contains(.middle) ? 0x08 : 0)
  }

  private static func word(_ value: Int) -> UInt32 {
    UInt32(bitPattern: Int32(clamping: value))
  }
}
