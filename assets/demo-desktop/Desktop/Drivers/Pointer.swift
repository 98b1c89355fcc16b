import CMachine

/// A change of the pointer: where it is (or how far it moved), buttons, wheel.
struct PointerReport {
  enum Movement {
    /// 0…65535 across the screen, each way.
    case absolute(x: Int, y: Int)
    case relative(x: Int, y: Int)
  }

  var movement: Movement
  /// Left 1, right 2, middle 4.
  var buttons: Int
  /// Positive turns towards the user.
  var wheel: Int
}

/// The VMware absolute pointer behind the backdoor port. Its reports are announced
/// by ordinary PS/2 mouse interrupts.
struct AbsolutePointer {
  private enum Command {
    static let version: UInt16 = 10
    static let data: UInt16 = 39
    static let status: UInt16 = 40
    static let control: UInt16 = 41
  }

  private enum Control {
    static let enable: UInt32 = 0x4541_4552
    static let absolute: UInt32 = 0x5342_4152
  }

  private static let magic: UInt32 = 0x564D_5868
  private static let pointerIdentity: UInt32 = 0x3442_554A

  init?() {
    let answer = backdoor_call(Command.version, ~Self.magic)
    guard answer.ebx == Self.magic, answer.eax != 0xFFFF_FFFF else { return nil }
    guard Self.enable() else { return nil }
  }

  private static func enable() -> Bool {
    _ = backdoor_call(Command.control, Control.enable)
    guard backdoor_call(Command.status, 0).eax & 0xFFFF != 0 else { return false }
    guard backdoor_call(Command.data, 1).eax == pointerIdentity else { return false }
    _ = backdoor_call(Command.control, Control.absolute)
    return true
  }

  func poll(_ report: (PointerReport) -> Void) {
    var status = backdoor_call(Command.status, 0).eax
    if status >> 16 == 0xFFFF {
      _ = Self.enable()
      return
    }
    while status & 0xFFFF >= 4 {
      for _ in 0..<(status & 0xFFFF) / 4 {
        let packet = backdoor_call(Command.data, 4)
        let held = packet.eax
        let buttons =
          (held & 0x20 != 0 ? 1 : 0) | (held & 0x10 != 0 ? 2 : 0)
          | (held & 0x08 != 0 ? 4 : 0)
        let x = Int(Int32(bitPattern: packet.ebx))
        let y = Int(Int32(bitPattern: packet.ecx))
        report(
          PointerReport(
            movement: held & 0x1_0000 != 0 ? .relative(x: x, y: -y) : .absolute(x: x, y: y),
            buttons: buttons, wheel: Int(Int8(truncatingIfNeeded: packet.edx))))
      }
      status = backdoor_call(Command.status, 0).eax
      if status >> 16 == 0xFFFF { return }
    }
  }
}

/// Puts PS/2 mouse bytes together: three to a packet, four with a wheel.
struct MouseDecoder {
  var hasWheel = false
  private var packet: [UInt8] = []

  mutating func decode(_ byte: UInt8) -> PointerReport? {
    // Bit 3 is always set in a packet's first byte; anything else is out of step.
    if packet.isEmpty, byte & 0x08 == 0 { return nil }
    packet.append(byte)
    guard packet.count == (hasWheel ? 4 : 3) else { return nil }
    defer { packet.removeAll(keepingCapacity: true) }
    let x = Int(packet[1]) - (packet[0] & 0x10 != 0 ? 256 : 0)
    let y = Int(packet[2]) - (packet[0] & 0x20 != 0 ? 256 : 0)
    let wheel = hasWheel ? Int(Int8(bitPattern: packet[3] << 4)) >> 4 : 0
    return PointerReport(
      movement: .relative(x: x, y: -y), buttons: Int(packet[0] & 7), wheel: wheel)
  }
}
